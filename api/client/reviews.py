"""Reviews of results by readers."""

from uuid import UUID

from api.client.connection import Connection
from api.contract.findings import Box
from api.contract.reviews import ReviewAnswer, ReviewRequest, UndoRequest
from shared.ids import new_id
from shared.vocabulary.review_actions import ReviewAction


class Reviews(Connection):
    """Reads and adds to reviews, as the reader who holds this key.

    A change takes the review that the reader has seen, and returns the review after the change. If another reader has
    changed the same finding meanwhile, it is refused with `review_conflict`.
    """

    def review(self, image_id: UUID, *, job_id: UUID | None = None) -> ReviewAnswer:
        """Return the review of a job's result; by default of the active model's, else of the one reviewed last.

        Refused with `not_ready` if there is no result.
        """
        return self._get(ReviewAnswer, _path(image_id), **({"job_id": str(job_id)} if job_id else {}))

    def add_to_review(
        self,
        review: ReviewAnswer,
        action: ReviewAction,
        finding_id: str | None = None,
        *,
        class_id: int | None = None,
        box_xyxy_px: Box | None = None,
        min_score: float | None = None,
    ) -> ReviewAnswer:
        """Accept, reject or change a finding, draw one, or call the review done; as `POST /v1/images/ID/reviews`.

        Raises pydantic's `ValidationError` for a value that the action does not take.
        """
        said = {"finding_id": finding_id, "class_id": class_id, "box_xyxy_px": box_xyxy_px, "min_score": min_score}
        event = {"action": action.value} | {name: value for name, value in said.items() if value is not None}
        body = ReviewRequest.model_validate({"job_id": review.job_id, "after": review.last_event, "event": event})
        return self._post(ReviewAnswer, _path(review.image_id), body, key=str(new_id()))

    def undo_review(self, review: ReviewAnswer) -> ReviewAnswer:
        """Undo this key's last action; refused with `nothing_to_take_back` if there is none."""
        return self._post(ReviewAnswer, f"{_path(review.image_id)}/undo", _seen(review), key=str(new_id()))

    def redo_review(self, review: ReviewAnswer) -> ReviewAnswer:
        """Redo the action that this key undid last; refused as `undo_review` is."""
        return self._post(ReviewAnswer, f"{_path(review.image_id)}/redo", _seen(review), key=str(new_id()))


def _path(image_id: UUID) -> str:
    return f"/v1/images/{image_id}/reviews"


def _seen(review: ReviewAnswer) -> UndoRequest:
    return UndoRequest(job_id=review.job_id, after=review.last_event)
