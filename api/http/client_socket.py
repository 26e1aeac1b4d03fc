"""The socket of a client, as a request thread uses it: no client can hold the thread for ever by being slow.

Threads read bodies, and write answers that are produced while they are sent. A whole answer is never waited for: what
the kernel does not take at once is left to the event loop of `api.http.connections`.
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

#: How long the body of a request may take; uploads excepted.
BODY_S = 30.0
#: For how long the client of an upload, or of a long answer, may make no progress at all.
SILENCE_S = 60.0
#: The least rate, on average, at which a client has to send or to read. The server's own work does not count.
MIN_BYTES_PER_S = 128.0
#: The largest part of an answer that is left to the event loop.
MOST_UNSENT_BYTES = 4 * 1024**2


class BodyTooSlow(RequestError):
    """The request body did not arrive in time. Send it again."""

    code = "body_too_slow"
    status = 408


class BodyPending(BaseException):
    """The request is fit to be answered once its body is here; no thread is to wait for that.

    Not an `Exception`, because nothing between the application and the worker is to handle it.
    """


class _Patience:
    """Time that a client has left: waiting uses it up, and each byte gives some back."""

    def __init__(self, most_s: float, min_bytes_per_s: float) -> None:
        self._most_s = self.left_s = most_s
        self._min_bytes_per_s = min_bytes_per_s

    def spend(self, waited_s: float, byte_count: int) -> bool:
        """Count what a wait brought, and return whether time is left."""
        self.left_s = min(self._most_s, self.left_s - waited_s + byte_count / self._min_bytes_per_s)
        return self.left_s > 0


def _nothing() -> None:
    pass


class ClientSocket(socket.socket):
    """The socket of one client."""

    def __init__(self, accepted: socket.socket) -> None:
        family, type_, proto = accepted.family, accepted.type, accepted.proto
        super().__init__(family, type_, proto, accepted.detach())
        #: What is left of an answer.
        self._unsent: deque[memoryview] = deque()
        #: Whether the thread may not wait for the body.
        self.is_body_pending = False
        self._request: Any = None
        self._when_answered: Callable[[], None] = _nothing
        self._is_continue_due = False
        self._writes_as_produced = self._is_upload = False
        self._reading = _Patience(BODY_S, math.inf)
        self._sending = _Patience(SILENCE_S, MIN_BYTES_PER_S)

    # --- what the worker calls ---

    def begin(self, request: Request) -> None:
        """Begin with a request, whose head has been parsed."""
        self._request = request
        # The client is told to go on when somebody reads, which is after its key has been checked.
        self._is_continue_due, request._expected_100_continue = request._expected_100_continue, False
        self._writes_as_produced = self._is_upload = False
        self._reading = _Patience(BODY_S, math.inf)
        self._sending = _Patience(SILENCE_S, MIN_BYTES_PER_S)

    def rest(self) -> bytes | None:
        """What arrived behind the request; None where its body has not been read and is not here either."""
        if not self.is_body_here:
            return None
        reader = self._request.body.reader
        unused: bytes = self._request.unreader.take_buffered()
        return unused[reader.length :] if isinstance(reader, LengthReader) else unused

    def end(self) -> None:
        """End with the request; a thread has answered it, or failed to."""
        self._when_answered()
        self._when_answered = _nothing
        self._writes_as_produced = False  # the event loop, which may write next, never waits

    def let_client_continue(self) -> None:
        """Send 100 Continue to a client that waits for it."""
        if self._is_continue_due:
            self._is_continue_due = False
            self.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")

    def flush(self) -> int:
        """Send what the kernel takes, and return how many bytes that was."""
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
        """How much of the answer is left."""
        return sum(map(len, self._unsent))

    # --- what the application calls ---

    @property
    def is_body_here(self) -> bool:
        """Whether nothing of the request's body is still to come from the client."""
        reader = self._request.body.reader
        if isinstance(reader, LengthReader):
            return bool(reader.length <= self._request.unreader.buf.getbuffer().nbytes)
        return reader.parser is None

    def require_body(self) -> None:
        """Raise `BodyPending` where the thread would have to wait for the body."""
        if self.is_body_pending:
            raise BodyPending

    def expect_upload(self) -> None:
        """Let the body take as long as it likes, as long as it makes progress."""
        self.is_body_pending = False
        self._is_upload = True
        self._reading = _Patience(SILENCE_S, MIN_BYTES_PER_S)

    def write_as_produced(self) -> None:
        """Have each part of the answer sent before the next one is made."""
        self._writes_as_produced = True

    def when_answered(self, call: Callable[[], None]) -> None:
        """Have this called, once, when the request holds no thread any more."""
        self._when_answered = call

    def close_after_answer(self) -> None:
        """Say in the answer that the connection ends with it."""
        self._request.force_close()

    # --- what gunicorn calls ---

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        """Return some bytes of the body; none where an upload is cut; raise `BodyTooSlow`, `UploadCutShort`."""
        self.require_body()
        self.let_client_continue()
        while True:
            self.settimeout(self._reading.left_s)
            began, data = time.monotonic(), None
            with suppress(TimeoutError):
                data = super().recv(bufsize, flags)
            if not self._reading.spend(time.monotonic() - began, len(data or b"")):
                raise BodyTooSlow
            # Nothing asks for more than the body has, and a form would pass for a shorter one. An upload's reader first
            # gets what came before the end, and then says that it was cut short.
            if data == b"" and not self._is_upload:
                raise UploadCutShort
            if data is not None:
                return data

    def sendall(self, data: Any, flags: int = 0, /) -> None:
        """Send a part of an answer, or leave it to the event loop; raise `ConnectionResetError` for a slow client."""
        self._unsent.append(memoryview(data))
        self.flush()
        if not self._writes_as_produced and len(data) <= MOST_UNSENT_BYTES:
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
