"""Converts reviews to answers of the API."""

from uuid import UUID

from api.contract.reviews import ReviewAnswer, ReviewedFindingAnswer, ReviewEventAnswer
from api.http.resource import fields_of
from api.studies.answers import box_in_mm, refer_to, spacing_of
from shared.reviews.fold import ReviewedFinding, finding_of
from shared.reviews.threads import ReviewThread
from shared.tables import Image, ReviewEvent


def describe_review(thread: ReviewThread, key_id: UUID) -> ReviewAnswer:
    """Return the review of a result for the holder of a key."""
    review = thread.fold()
    return ReviewAnswer(
        image_id=thread.image.id,
        job_id=thread.job.id,
        model=refer_to(thread.model),
        last_event=review.last_event,
        is_complete=review.is_complete,
        complete_from_score=review.complete_from_score,
        may_undo=thread.may_undo(key_id),
        may_redo=thread.may_redo(key_id),
        findings=[_describe_finding(finding, thread.image) for finding in review.findings],
        events=[_describe_event(event) for event in thread.events],
    )


def _describe_finding(finding: ReviewedFinding, image: Image) -> ReviewedFindingAnswer:
    box_xyxy_mm = box_in_mm(finding.box_xyxy_px, spacing_of(image))
    return ReviewedFindingAnswer(**fields_of(ReviewedFindingAnswer, finding, "box_xyxy_mm"), box_xyxy_mm=box_xyxy_mm)


def _describe_event(event: ReviewEvent) -> ReviewEventAnswer:
    return ReviewEventAnswer(**fields_of(ReviewEventAnswer, event, "finding_id"), finding_id=finding_of(event))
