"""What the API takes and gives about reviews."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, Field

from api.contract.schemas import NOTICE
from api.contract.studies import Box, ModelReference, box_in_mm, spacing_of
from shared.bounded import MOST_INT4, Bounded, Int4
from shared.reviews.fold import ReviewedFinding, finding_of
from shared.reviews.rows import ReviewThread, Said
from shared.tables import Image, ReviewEvent
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

    def said(self) -> Said:
        """The same for the rows."""
        return Said(ReviewAction.ACCEPT, self.finding_id)


class Reject(Bounded):
    """There is no such finding."""

    action: Literal["reject"]
    finding_id: _FindingId

    def said(self) -> Said:
        """The same for the rows."""
        return Said(ReviewAction.REJECT, self.finding_id)


class Change(Bounded):
    """The finding is right with another box or class; what is left out stays."""

    action: Literal["change"]
    finding_id: _FindingId
    class_id: Int4 | None = None
    box_xyxy_px: _BoxPx | None = Field(None, description="In pixels of the original image.")

    def said(self) -> Said:
        """The same for the rows."""
        return Said(ReviewAction.CHANGE, self.finding_id, self.class_id, self.box_xyxy_px)


class Draw(Bounded):
    """Here is a finding that the model has missed."""

    action: Literal["draw"]
    class_id: Int4 = Field(description="One of the model's.")
    box_xyxy_px: _BoxPx = Field(description="In pixels of the original image.")

    def said(self) -> Said:
        """The same for the rows."""
        return Said(ReviewAction.DRAW, None, self.class_id, self.box_xyxy_px)


class NoFinding(Bounded):
    """The image shows nothing: every finding is rejected, and the review is done."""

    action: Literal["no_finding"]

    def said(self) -> Said:
        """The same for the rows."""
        return Said(ReviewAction.NO_FINDING)


class Complete(Bounded):
    """The review is done."""

    action: Literal["complete"]
    min_score: float = Field(
        0.0, ge=0, le=1, description="Findings with a lower score were not looked at, and count as rejected."
    )

    def said(self) -> Said:
        """The same for the rows."""
        return Said(ReviewAction.COMPLETE, min_score=self.min_score)


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

    @classmethod
    def of(cls, finding: ReviewedFinding, image: Image) -> "ReviewedFindingAnswer":
        """Describe a finding on its image."""
        spacing = spacing_of(image)
        return cls(
            id=finding.id,
            class_id=finding.class_id,
            class_name=finding.class_name,
            score=finding.score,
            box_xyxy_px=finding.box_xyxy_px,
            box_xyxy_mm=spacing and box_in_mm(finding.box_xyxy_px, spacing),
            verdict=finding.verdict,
            is_changed=finding.is_changed,
        )


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

    @classmethod
    def of(cls, event: ReviewEvent) -> "ReviewEventAnswer":
        """Describe an event's row."""
        return cls(
            number=event.number,
            action=ReviewAction(event.action),
            finding_id=finding_of(event),
            undoes=event.undoes,
            class_name=event.class_name,
            api_key_id=event.api_key_id,
            reader=event.reader,
            created_at=event.created_at,
        )


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

    @classmethod
    def of(cls, thread: ReviewThread, key_id: UUID) -> "ReviewAnswer":
        """Describe a result's review to the holder of a key."""
        review = thread.fold()
        return cls(
            image_id=thread.image.id,
            job_id=thread.job.id,
            model=ModelReference.of(thread.model),
            last_event=review.last_event,
            is_complete=review.is_complete,
            complete_from_score=review.complete_from_score,
            may_undo=thread.may_undo(key_id),
            may_redo=thread.may_redo(key_id),
            findings=[ReviewedFindingAnswer.of(finding, thread.image) for finding in review.findings],
            events=[ReviewEventAnswer.of(event) for event in thread.events],
        )
