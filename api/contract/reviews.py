"""Reviews of results by readers."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, Field

from api.contract.findings import NOTICE, Box
from api.contract.models import ModelReference
from shared.bounded import MAX_INT4, Bounded, Int4
from shared.vocabulary.review_actions import ReviewAction, Verdict

#: Limits that no image exceeds.
_Coordinate = Annotated[float, Field(allow_inf_nan=False, ge=-1e6, le=1e6)]
_FindingId = Annotated[str, Field(pattern=r"^(model|drawn)-(0|[1-9][0-9]{0,5})$", description="Id of a finding.")]
_BoxPx = tuple[_Coordinate, _Coordinate, _Coordinate, _Coordinate]


class ReviewQuery(Bounded):
    """Selects a result."""

    job_id: UUID | None = Field(
        None, description="Default: the job of the active model, else the one reviewed last, else the latest."
    )


class Accept(Bounded):
    """The finding is correct and unchanged."""

    action: Literal["accept"]
    finding_id: _FindingId


class Reject(Bounded):
    """The finding is not correct."""

    action: Literal["reject"]
    finding_id: _FindingId


class Change(Bounded):
    """The finding is correct with another box or class; fields that are left out stay unchanged."""

    action: Literal["change"]
    finding_id: _FindingId
    class_id: Int4 | None = None
    box_xyxy_px: _BoxPx | None = Field(None, description="In pixels of the original image.")


class Draw(Bounded):
    """A finding that the model has missed."""

    action: Literal["draw"]
    class_id: Int4 = Field(description="A class of the model.")
    box_xyxy_px: _BoxPx = Field(description="In pixels of the original image.")


class NoFinding(Bounded):
    """The image has no finding: all findings are rejected, and the review is complete."""

    action: Literal["no_finding"]


class Complete(Bounded):
    """The review is complete."""

    action: Literal["complete"]
    min_score: float = Field(
        0.0, ge=0, le=1, description="Findings with a lower score were not reviewed and count as rejected."
    )


class UndoRequest(Bounded):
    """Undo or redo the last event of the request's key in the review of this result."""

    job_id: UUID
    after: int = Field(ge=0, le=MAX_INT4, description="`last_event` of the review that the reader has seen.")


class ReviewRequest(UndoRequest):
    """An event to add to the review of a result."""

    event: Accept | Reject | Change | Draw | NoFinding | Complete = Field(discriminator="action")


class ReviewedFindingAnswer(BaseModel):
    """A box that the model found or a reader drew, and the readers' verdict."""

    id: str
    class_id: int
    class_name: str
    #: None if a reader drew it.
    score: float | None
    box_xyxy_px: Box
    box_xyxy_mm: Box | None
    verdict: Verdict
    #: Whether a reader has changed its box or class.
    is_changed: bool


class ReviewEventAnswer(BaseModel):
    """One event of a review."""

    number: int
    action: ReviewAction
    #: None if the event concerns the whole image.
    finding_id: str | None
    #: The event that this event undoes.
    undoes: int | None
    class_name: str | None
    #: The reader's key, and its name at that time.
    api_key_id: UUID
    reader: str
    created_at: datetime


class ReviewAnswer(BaseModel):
    """The review of a result: its current state and its events."""

    image_id: UUID
    job_id: UUID
    model: ModelReference
    #: `after` of the next request.
    last_event: int
    #: Whether all findings with at least `complete_from_score` are decided since a reader completed the review.
    is_complete: bool
    complete_from_score: float | None
    #: Whether the request's key has an event to undo or to redo.
    may_undo: bool
    may_redo: bool
    #: The model's findings by falling score, then drawn ones.
    findings: list[ReviewedFindingAnswer]
    events: list[ReviewEventAnswer]
    notice: str = NOTICE
