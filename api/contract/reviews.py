"""Reviews of results by readers."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, Field

from api.contract.findings import NOTICE, Box
from api.contract.models import ModelReference
from shared.bounded import MOST_INT4, Bounded, Int4
from shared.vocabulary.review_actions import ReviewAction, Verdict

#: A box that no number of pixels could hold is not looked at.
_Coordinate = Annotated[float, Field(allow_inf_nan=False, ge=-1e6, le=1e6)]
_FindingId = Annotated[str, Field(pattern=r"^(model|drawn)-(0|[1-9][0-9]{0,5})$", description="As in the review.")]
_BoxPx = tuple[_Coordinate, _Coordinate, _Coordinate, _Coordinate]


class ReviewQuery(Bounded):
    """Of which result."""

    job_id: UUID | None = Field(
        None, description="By default the active model's, else the one reviewed last, else the latest."
    )


class Accept(Bounded):
    """The finding is right as it stands."""

    action: Literal["accept"]
    finding_id: _FindingId


class Reject(Bounded):
    """There is no such finding."""

    action: Literal["reject"]
    finding_id: _FindingId


class Change(Bounded):
    """The finding is right with another box or class; what is left out stays."""

    action: Literal["change"]
    finding_id: _FindingId
    class_id: Int4 | None = None
    box_xyxy_px: _BoxPx | None = Field(None, description="In pixels of the original image.")


class Draw(Bounded):
    """Here is a finding that the model has missed."""

    action: Literal["draw"]
    class_id: Int4 = Field(description="One of the model's.")
    box_xyxy_px: _BoxPx = Field(description="In pixels of the original image.")


class NoFinding(Bounded):
    """The image shows nothing: every finding is rejected, and the review is done."""

    action: Literal["no_finding"]


class Complete(Bounded):
    """The review is done."""

    action: Literal["complete"]
    min_score: float = Field(
        0.0, ge=0, le=1, description="Findings with a lower score were not looked at, and count as rejected."
    )


class UndoRequest(Bounded):
    """Whose last event to take back, or to say again: the request's key's, of this result."""

    job_id: UUID
    after: int = Field(ge=0, le=MOST_INT4, description="`last_event` of the review that was looked at.")


class ReviewRequest(UndoRequest):
    """What to add to the review of a result."""

    event: Accept | Reject | Change | Draw | NoFinding | Complete = Field(discriminator="action")


class ReviewedFindingAnswer(BaseModel):
    """A box that the model found or a reader drew, and what readers say of it."""

    id: str
    class_id: int
    class_name: str
    #: None of what a reader drew.
    score: float | None
    box_xyxy_px: Box
    box_xyxy_mm: Box | None
    verdict: Verdict
    #: Whether a reader has given it another box or class than it had.
    is_changed: bool


class ReviewEventAnswer(BaseModel):
    """One thing that a reader said."""

    number: int
    action: ReviewAction
    #: None where it is about the whole image.
    finding_id: str | None
    #: The event that this one takes back.
    undoes: int | None
    class_name: str | None
    #: Who said it: the key, and what it was called then.
    api_key_id: UUID
    reader: str
    created_at: datetime


class ReviewAnswer(BaseModel):
    """A result as its readers left it, and how they came there."""

    image_id: UUID
    job_id: UUID
    model: ModelReference
    #: `after` of the next request.
    last_event: int
    #: Whether everything from `complete_from_score` on has been decided since a reader called the review done.
    is_complete: bool
    complete_from_score: float | None
    #: Whether the request's key has something to take back, or to say again.
    may_undo: bool
    may_redo: bool
    #: The model's, the highest score first, then those that were drawn.
    findings: list[ReviewedFindingAnswer]
    events: list[ReviewEventAnswer]
    notice: str = NOTICE
