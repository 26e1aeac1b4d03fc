"""Reviews of results by readers."""

from collections.abc import Callable
from uuid import UUID

from flask import Response

from api.contract.reviews import ReviewAnswer, ReviewQuery, ReviewRequest, UndoRequest
from api.contract.studies import ImagePath
from api.http.audit import note
from api.http.auth import identity, requires
from api.http.errors import may_raise
from api.http.idempotency import idempotent
from api.http.resource import as_json, resource
from api.http.services import services
from api.reviews.answers import describe_review
from shared.reviews.threads import (
    NewEvent,
    NothingToTakeBack,
    ReviewConflict,
    ReviewIncomplete,
    ReviewThread,
    open_thread,
)
from shared.vocabulary.review_actions import ReviewAction
from shared.vocabulary.states import Scope

blueprint = resource("reviews")


@blueprint.get("/v1/images/<uuid:image_id>/reviews", responses={200: ReviewAnswer})
@requires(Scope.READ)
def show(path: ImagePath, query: ReviewQuery) -> Response:
    """Show the review of a result.

    Returns the findings as readers have left them, and every event of the review.
    """
    with services().database.begin() as session:
        thread = open_thread(session, identity().project_id, path.image_id, query.job_id, to_add=False)
        return as_json(describe_review(thread, identity().key_id))


@blueprint.post("/v1/images/<uuid:image_id>/reviews", responses={201: ReviewAnswer})
@requires(Scope.SUBMIT)
@idempotent
@may_raise(ReviewConflict, ReviewIncomplete)
def add(path: ImagePath, body: ReviewRequest) -> Response:
    """Add an event to a review.

    Accept, reject, change or draw a finding, or complete the review. `after` is the last event that the reader has
    seen. The event is refused with `review_conflict` if a later event is about the same finding.
    """
    return _add(
        path.image_id,
        body,
        lambda thread: thread.add(
            identity(),
            NewEvent(ReviewAction(body.event.action), **body.event.model_dump(exclude={"action"})),
            after=body.after,
        ),
    )


@blueprint.post("/v1/images/<uuid:image_id>/reviews/undo", responses={201: ReviewAnswer})
@requires(Scope.SUBMIT)
@idempotent
@may_raise(NothingToTakeBack, ReviewConflict)
def undo(path: ImagePath, body: UndoRequest) -> Response:
    """Undo the last event of a review.

    Undoes the last event of this key, unless a later event depends on it.
    """
    return _add(path.image_id, body, lambda thread: thread.undo(identity(), after=body.after))


@blueprint.post("/v1/images/<uuid:image_id>/reviews/redo", responses={201: ReviewAnswer})
@requires(Scope.SUBMIT)
@idempotent
@may_raise(NothingToTakeBack, ReviewConflict)
def redo(path: ImagePath, body: UndoRequest) -> Response:
    """Redo an event of a review.

    Repeats the event that this key has undone last, unless the key has added another event since.
    """
    return _add(path.image_id, body, lambda thread: thread.redo(identity(), after=body.after))


def _add(image_id: UUID, body: UndoRequest, event: Callable[[ReviewThread], None]) -> Response:
    """Add an event to a review, and return the review."""
    with services().database.begin() as session:
        thread = open_thread(session, identity().project_id, image_id, body.job_id, to_add=True)
        event(thread)
        added = thread.events[-1]
        note(job_id=body.job_id, event=added.number, said=added.action)
        return as_json(describe_review(thread, identity().key_id), 201)
