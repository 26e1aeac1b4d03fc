"""Server-sent events: a limited number of streams, with regular signs of life, that end when the process stops."""

import json
import time
from collections.abc import Iterator
from typing import Any

import structlog
from flask import Response, stream_with_context

from api.http.services import services
from shared.errors import TransientError, Unauthorized

log = structlog.get_logger()

#: The length of a stream, after which the client reconnects; and the longest time without any data.
STREAM_S, SILENCE_S = 240.0, 15.0
RECONNECT_MS = 2000


def described(what: str, name: str) -> dict[str, Any]:
    """Describe a stream for `/openapi.json`."""
    properties = {
        "event": {"const": name},
        "id": {"type": "string"},
        "data": {"type": "string"},
        "retry": {"type": "integer"},
    }
    schema = {"type": "object", "properties": properties}
    example = {"event": name, "data": '{"state": "processing", …}', "retry": RECONNECT_MS}
    return {"description": what, "content": {"text/event-stream": {"schema": schema, "example": example}}}


def event(name: str, data: str, *, id_: str | None = None) -> str:
    """Format one event."""
    lines = [f"event: {name}", *([] if id_ is None else [f"id: {id_}"]), f"data: {data}"]
    return "\n".join(lines) + "\n\n"


def respond(first: str, following: Iterator[str | None]) -> Response:
    """Stream an event, then the following ones; None in `following` means that nothing has changed.

    If the maximum number of streams is open, only the first event is sent, and the client reconnects. If a server is
    down, or the key or session ends, a last event `end` is sent and the stream ends.
    """
    first = f"retry: {RECONNECT_MS}\n{first}"
    headers = {"X-Accel-Buffering": "no"}
    long_polls = services().long_polls
    if not long_polls.acquire(blocking=False):
        return Response(first, headers=headers, content_type="text/event-stream")
    body = stream_with_context(_told(first, following))
    response = Response(body, headers=headers, content_type="text/event-stream")
    response.call_on_close(long_polls.release)
    return response


def _told(first: str, following: Iterator[str | None]) -> Iterator[str]:
    yield first
    said = time.monotonic()
    try:
        for each in following:
            if each is not None:
                yield each
            elif time.monotonic() - said > SILENCE_S:
                yield ":\n\n"
            else:
                continue
            said = time.monotonic()
    except Unauthorized as error:
        yield event("end", json.dumps({"code": error.code, "detail": error.public_detail}))
    except TransientError as error:
        log.warning("event_stream_ended", code=error.code)
