"""How far a submission is: looked at once, waited for, or told as server-sent events."""

import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from uuid import UUID

from flask import Response, request, stream_with_context

from api.auth import requires
from api.resource import as_json, resource
from api.services import services
from api.submission_schemas import ProgressQuery, SubmissionAnswer, SubmissionPath
from api.submissions import look
from shared.errors import TransientError
from shared.queue.states import Scope

blueprint = resource("progress", tag="submissions")

#: The pause between two looks grows from the first to the second.
SHORTEST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 0.5
#: A stream ends after the first, and the client comes again; it is never silent for longer than the second.
STREAM_S, SILENCE_S = 240.0, 15.0
RECONNECT_MS = 2000
#: The `id` of a stream's last event.
FINAL = "final"

_EVENTS: dict[str, Any] = {
    "description": "Events named `progress`, each with a SubmissionAnswer.",
    "content": {
        "text/event-stream": {
            "schema": {
                "type": "object",
                "properties": {
                    "event": {"const": "progress"},
                    "id": {"type": "string"},
                    "data": {"type": "string"},
                    "retry": {"type": "integer"},
                },
            }
        }
    },
}


@blueprint.get("/v1/submissions/<uuid:submission_id>", responses={200: SubmissionAnswer})
@requires(Scope.READ)
def show(path: SubmissionPath, query: ProgressQuery) -> Response:
    """Show a submission; with `wait`, once its counts or its state have changed or the time is over.

    A final one is answered at once, and the answer may come early when many requests wait already.
    """
    answer = look(path.submission_id)
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
def stream(path: SubmissionPath) -> Response:
    """Tell of each change of a submission until it is final; a stream ends after some minutes, to be opened anew."""
    answer = look(path.submission_id)
    if answer.state.is_final and request.headers.get("Last-Event-ID") == FINAL:
        return Response(status=204)  # which tells a browser not to come again
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    long_polls = services().long_polls
    if not long_polls.acquire(blocking=False):
        # As many wait as may: this client looks again and again.
        return Response(_first(answer), headers=headers, content_type="text/event-stream")
    body = stream_with_context(_told(path.submission_id, answer))
    response = Response(body, headers=headers, content_type="text/event-stream")
    response.call_on_close(long_polls.release)
    return response


def _told(submission_id: UUID, answer: SubmissionAnswer) -> Iterator[str]:
    yield _first(answer)
    said = time.monotonic()
    # A server that is down ends the stream; the client will come again.
    with suppress(TransientError):
        for change in _changes(submission_id, answer, STREAM_S):
            if change is not None:
                yield _event(change)
            elif time.monotonic() - said > SILENCE_S:
                yield ":\n\n"
            else:
                continue
            said = time.monotonic()


def _changes(submission_id: UUID, known: SubmissionAnswer, within_s: float) -> Iterator[SubmissionAnswer | None]:
    """Yield a submission whenever it has changed, and None whenever it has not, until it is final.

    Each look is a transaction of its own: whoever waits holds no connection.
    """
    deadline, pause_s = time.monotonic() + within_s, SHORTEST_PAUSE_S
    while not known.state.is_final:
        left_s = deadline - time.monotonic()
        if left_s <= 0 or services().stopping.wait(min(pause_s, left_s)):
            return
        answer = look(submission_id)
        changed = (answer.state, answer.counts) != (known.state, known.counts)
        yield answer if changed else None
        known, pause_s = answer, min(pause_s * 1.5, LONGEST_PAUSE_S)


def _first(answer: SubmissionAnswer) -> str:
    return f"retry: {RECONNECT_MS}\n{_event(answer)}"


def _event(answer: SubmissionAnswer) -> str:
    id_ = f"id: {FINAL}\n" if answer.state.is_final else ""
    return f"event: progress\n{id_}data: {answer.model_dump_json()}\n\n"
