"""The socket of a client for a request thread, with time limits, so that no slow client can block the thread forever.

Threads read bodies, and write answers that are produced while they are sent. They never wait until a complete answer is
sent: the event loop of `api.http.connections` sends the part that the kernel does not accept immediately.
"""

import errno
import math
import socket
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from gunicorn.http.body import LengthReader
from gunicorn.http.message import Request

from shared.errors import RequestError, UploadCutShort

#: Maximum time for the body of a request, except uploads.
BODY_S = 30.0
#: Maximum time without progress for the client of an upload or of a long answer.
SILENCE_S = 60.0
#: Minimum average rate at which a client must send or read. Time that the server spends on its own work is not counted.
MIN_BYTES_PER_S = 128.0
#: Maximum size of a part of an answer that is left to the event loop.
MAX_UNSENT_BYTES = 4 * 1024**2


class BodyTooSlow(RequestError):
    """The request body did not arrive in time. Send it again."""

    code = "body_too_slow"
    status = 408


class BodyPending(BaseException):
    """The request is fit to be answered once its body is here; no thread is to wait for that.

    Not an `Exception`, because nothing between the application and the worker is to handle it.
    """


class _Patience:
    """The time that a client has left: waiting reduces it, and each byte increases it."""

    def __init__(self, max_s: float, min_bytes_per_s: float) -> None:
        self._max_s = self.left_s = max_s
        self._min_bytes_per_s = min_bytes_per_s

    def spend(self, waited_s: float, byte_count: int) -> bool:
        """Count a wait and the bytes it brought. Returns whether time is left."""
        self.left_s = min(self._max_s, self.left_s - waited_s + byte_count / self._min_bytes_per_s)
        return self.left_s > 0


def _nothing() -> None:
    pass


class ClientSocket(socket.socket):
    """The socket of one client."""

    def __init__(self, accepted: socket.socket) -> None:
        family, type_, proto = accepted.family, accepted.type, accepted.proto
        super().__init__(family, type_, proto, accepted.detach())
        #: The unsent rest of an answer.
        self._unsent: deque[memoryview] = deque()
        #: Whether the thread must not wait for the body.
        self.is_body_pending = False
        self._request: Any = None
        self._when_answered: Callable[[], None] = _nothing
        self._is_continue_due = False
        self._writes_as_produced = self._is_upload = False
        self._reading = _Patience(BODY_S, math.inf)
        self._sending = _Patience(SILENCE_S, MIN_BYTES_PER_S)

    # --- called by the worker ---

    def begin(self, request: Request) -> None:
        """Start a request whose head has been parsed."""
        self._request = request
        # 100 Continue is sent when the body is read, which is after the key has been checked.
        self._is_continue_due, request._expected_100_continue = request._expected_100_continue, False
        self._writes_as_produced = self._is_upload = False
        self._reading = _Patience(BODY_S, math.inf)
        self._sending = _Patience(SILENCE_S, MIN_BYTES_PER_S)

    def rest(self) -> bytes | None:
        """Return the bytes received after the request; None if its body is neither read nor received completely."""
        if not self.is_body_here:
            return None
        reader = self._request.body.reader
        unused: bytes = self._request.unreader.take_buffered()
        return unused[reader.length :] if isinstance(reader, LengthReader) else unused

    def end(self) -> None:
        """End the request after a thread has answered it, or failed to."""
        self._when_answered()
        self._when_answered = _nothing
        self._writes_as_produced = False  # the event loop, which may write next, never waits

    def let_client_continue(self) -> None:
        """Send 100 Continue to a client that waits for it."""
        if self._is_continue_due:
            self._is_continue_due = False
            self.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")

    def flush(self) -> int:
        """Send the bytes that the kernel accepts immediately, and return their number."""
        self.settimeout(0)
        sent = 0
        while self._unsent:
            try:
                count = super().send(self._unsent[0])
            except BlockingIOError:
                break
            sent += count
            self._drop(count)
        return sent

    @property
    def unsent_bytes(self) -> int:
        """Return the number of unsent bytes of the answer."""
        return sum(map(len, self._unsent))

    # --- called by the application ---

    @property
    def is_body_here(self) -> bool:
        """Return whether the request's body has been received completely."""
        reader = self._request.body.reader
        if isinstance(reader, LengthReader):
            return bool(reader.length <= self._request.unreader.buf.getbuffer().nbytes)
        return reader.parser is None

    def require_body(self) -> None:
        """Raise `BodyPending` if the thread would have to wait for the body."""
        if self.is_body_pending:
            raise BodyPending

    def expect_upload(self) -> None:
        """Allow the body to take any time while it makes progress."""
        self.is_body_pending = False
        self._is_upload = True
        self._reading = _Patience(SILENCE_S, MIN_BYTES_PER_S)

    def write_as_produced(self) -> None:
        """Send each part of the answer before the next one is produced."""
        self._writes_as_produced = True

    def when_answered(self, call: Callable[[], None]) -> None:
        """Call this once when the request no longer occupies a thread."""
        self._when_answered = call

    def close_after_answer(self) -> None:
        """Announce in the answer that the connection is closed after it."""
        self._request.force_close()

    # --- called by gunicorn ---

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        """Return bytes of the body; none if an upload is cut. Raises `BodyTooSlow` or `UploadCutShort`."""
        self.require_body()
        self.let_client_continue()
        while True:
            self.settimeout(self._reading.left_s)
            began, data = time.monotonic(), None
            with suppress(TimeoutError):
                data = super().recv(bufsize, flags)
            if not self._reading.spend(time.monotonic() - began, len(data or b"")):
                raise BodyTooSlow
            # Reads never exceed the body, and a truncated form would look complete. The reader of an upload first
            # receives the bytes before the end, and then reports that it was cut short.
            if data == b"" and not self._is_upload:
                raise UploadCutShort
            if data is not None:
                return data

    def sendall(self, data: Any, flags: int = 0, /) -> None:
        """Send a part of an answer, or leave it to the event loop. Raises `ConnectionResetError` for a slow client."""
        self._unsent.append(memoryview(data))
        self.flush()
        if not self._writes_as_produced and len(data) <= MAX_UNSENT_BYTES:
            return
        while self._unsent:
            self.settimeout(self._sending.left_s)
            began, sent = time.monotonic(), 0
            with suppress(TimeoutError):
                sent = super().send(self._unsent[0])
            if not self._sending.spend(time.monotonic() - began, sent):
                raise ConnectionResetError(errno.ECONNRESET, "The client takes its answer too slowly.")
            self._drop(sent)

    def _drop(self, sent: int) -> None:
        self._unsent[0] = self._unsent[0][sent:]
        if not self._unsent[0]:
            self._unsent.popleft()
