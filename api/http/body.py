"""Limits the size of request bodies, and streams uploads.

The limit is `SMALL_BYTES`, or `PUBLIC_BYTES` for a public view, unless a decorator of the view sets another one. No
body is read before the request's key has been checked.
"""

from collections.abc import Callable, Iterator
from io import BytesIO
from typing import TypeVar

from flask import Flask, Request, Response, current_app, request
from werkzeug.exceptions import LengthRequired, RequestEntityTooLarge

from api.http.auth import is_public
from api.http.client_socket import BodyTooSlow, ClientSocket
from shared.errors import LimitExceeded, UploadCutShort

View = TypeVar("View", bound=Callable[..., object])

#: The largest chunk that is read at once.
CHUNK_BYTES = 256 * 1024
#: Limit of a view that accepts no upload.
SMALL_BYTES = 64 * 1024
#: Limit of a public view, such as the sign-in form.
PUBLIC_BYTES = 4 * 1024
_MAX_FORM_PARTS = 100


def takes(max_bytes: int) -> Callable[[View], View]:
    """Raise the limit of a view whose body is still read as a whole."""

    def mark(view: View) -> View:
        view.max_bytes = max_bytes  # type: ignore[attr-defined]
        return view

    return mark


def takes_uploads(view: View) -> View:
    """Let a view stream the body itself, with a limit of its own."""
    view.takes_uploads = True  # type: ignore[attr-defined]
    return view


def install(app: Flask) -> None:
    """Limit the bodies of all requests to `app`. `bound` must be called after the key is known."""
    app.config.update(MAX_FORM_MEMORY_SIZE=SMALL_BYTES, MAX_FORM_PARTS=_MAX_FORM_PARTS)
    app.before_request(_bound_first)
    app.after_request(_pace)


def _bound_first() -> None:
    """Limit the data that is read before the key is known, such as the token of a form."""
    request.max_content_length = SMALL_BYTES


def bound() -> None:
    """Apply the view's limit; raise `RequestEntityTooLarge`, or `BodyPending` if only the body is still missing."""
    if request.endpoint is None:
        return  # no such route: the answer is 404 or 405
    view, client = current_app.view_functions[request.endpoint], client_socket()
    if hasattr(view, "takes_uploads"):
        request.max_content_length = None
        if client is not None:
            client.expect_upload()
        return
    max_bytes = PUBLIC_BYTES if is_public(view) else getattr(view, "max_bytes", SMALL_BYTES)
    request.max_content_length = max_bytes
    if (request.content_length or 0) > max_bytes:
        raise RequestEntityTooLarge
    if is_public(view) and "Transfer-Encoding" in request.headers:
        raise LengthRequired("Send the body with Content-Length; this route does not accept chunks.")
    if client is not None:
        client.require_body()
        if is_public(view) and not client.is_body_here:
            raise UploadCutShort  # a public view must not make a thread wait


def read_chunks() -> None:
    """Read a chunked body as a whole, unless it is an upload; raise `RequestEntityTooLarge` and `UploadCutShort`."""
    view = current_app.view_functions.get(request.endpoint or "")
    if view is None or hasattr(view, "takes_uploads") or "Transfer-Encoding" not in request.headers:
        return
    max_bytes = request.max_content_length or SMALL_BYTES
    try:
        data = request.environ["wsgi.input"].read(max_bytes + 1)
    except BodyTooSlow:
        raise
    except Exception as exc:  # each server has its own errors for malformed chunks
        raise UploadCutShort("The chunks of the body are malformed or incomplete.") from exc
    if len(data) > max_bytes:
        raise RequestEntityTooLarge
    request.environ["wsgi.input"] = BytesIO(data)


def _pace(response: Response) -> Response:
    """Produce a streamed answer only as fast as its client reads."""
    if response.is_streamed and (client := client_socket()) is not None:
        client.write_as_produced()
    return response


def client_socket() -> ClientSocket | None:
    """Return the client's socket; None if the application runs without a server."""
    client: ClientSocket | None = request.environ.get("gunicorn.socket")
    return client


class Body:
    """The body of a request, to be read once."""

    def __init__(self, request: Request, *, max_bytes: int) -> None:
        """Raise `LimitExceeded` if `Content-Length` is above `max_bytes`."""
        #: None for a chunked body, whose end the server verifies.
        self._announced_bytes = request.content_length
        if self._announced_bytes is not None and self._announced_bytes > max_bytes:
            raise LimitExceeded("max_upload_bytes", max_bytes)
        self._stream = request.stream
        self._max_bytes = max_bytes
        #: Bytes read so far.
        self.bytes_read = 0

    def read(self) -> bytes:
        """Return the next bytes, or none at the end; raise `UploadCutShort` or `LimitExceeded`."""
        try:
            chunk = self._stream.read(CHUNK_BYTES)
        except Exception as exc:  # each server has its own errors for an incomplete body
            raise UploadCutShort from exc
        self.bytes_read += len(chunk)
        if not chunk and self._announced_bytes is not None and self.bytes_read < self._announced_bytes:
            # With gunicorn, an interrupted stream looks like a complete one.
            raise UploadCutShort
        if self.bytes_read > self._max_bytes:
            raise LimitExceeded("max_upload_bytes", self._max_bytes)
        return chunk

    def chunks(self) -> Iterator[bytes]:
        """Yield the whole body; raises what `read` raises."""
        while chunk := self.read():
            yield chunk
