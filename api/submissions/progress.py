"""The progress of a submission: read once, by a long poll, or as server-sent events."""

from collections.abc import Iterator
from uuid import UUID

from flask import Response, request

from api.contract.submissions import ProgressQuery, SubmissionAnswer, SubmissionPath
from api.http.audit import unaudited
from api.http.auth import requires
from api.http.event_stream import STREAM_S, described, event, respond
from api.http.polling import poll
from api.http.resource import as_json, resource
from api.http.services import services
from api.submissions.submissions import read_progress
from shared.vocabulary.states import Scope

blueprint = resource("progress", tag="submissions")

#: The `id` of the last event of a stream.
FINAL = "final"

_EVENTS = described("Events named `progress`, each with a SubmissionAnswer.", "progress")


@blueprint.get("/v1/submissions/<uuid:submission_id>", responses={200: SubmissionAnswer})
@requires(Scope.READ)
@unaudited("It shows counts and states, and clients poll it.")
def show(path: SubmissionPath, query: ProgressQuery) -> Response:
    """Show a submission.

    With `wait`, the answer comes when the counts or the state have changed or the time is over. It may come earlier if
    many requests are waiting already.
    """
    answer = read_progress(path.submission_id)
    if query.wait > 0 and services().long_polls.acquire(blocking=False):
        try:
            changes = _changes(path.submission_id, answer, query.wait)
            answer = next((change for change in changes if change is not None), answer)
        finally:
            services().long_polls.release()
    return as_json(answer)


@blueprint.get(
    "/v1/submissions/<uuid:submission_id>/events", responses={200: _EVENTS, 204: {"description": "It is final."}}
)
@requires(Scope.READ)
@unaudited("It shows counts and states.")
def stream(path: SubmissionPath) -> Response:
    """Stream a submission's progress.

    Server-sent events: one event for each change until the submission is final. A stream ends after some minutes;
    connect again to continue.
    """
    answer = read_progress(path.submission_id)
    if answer.state.is_final and request.headers.get("Last-Event-ID") == FINAL:
        return Response(status=204)  # tells the browser not to reconnect
    changes = _changes(path.submission_id, answer, STREAM_S)
    return respond(_event(answer), (None if change is None else _event(change) for change in changes))


def _changes(submission_id: UUID, known: SubmissionAnswer, within_s: float) -> Iterator[SubmissionAnswer | None]:
    """Yield the submission after each change, and None after each check without one, until it is final.

    Each check is a transaction of its own, so no connection is held in between.
    """
    if known.state.is_final:
        return
    for _ in poll(within_s, subject=submission_id):
        answer = read_progress(submission_id)
        changed = (answer.state, answer.counts) != (known.state, known.counts)
        yield answer if changed else None
        if answer.state.is_final:
            return
        known = answer


def _event(answer: SubmissionAnswer) -> str:
    return event("progress", answer.model_dump_json(), id_=FINAL if answer.state.is_final else None)
