"""Keeps idle and slow clients away from the request threads, and limits the number of connections.

A connection is in one of these states. In every state but `REQUEST` the worker's event loop handles it, without a
thread and with a time limit:

* `IDLE`: the last request is answered; the connection is kept alive for the next one.
* `HEAD`: the request line and the headers of a request are arriving.
* `BODY`: the head is complete, and a small body is arriving. After a moment, or at once if the client waits for
  `100 Continue`, the request is tried without its body: if its key is not valid it is answered; if only the body is
  missing it returns to this state (`BodyPending`). Large and chunked bodies are read by the thread.
* `REQUEST`: a thread processes the request, or it waits for a thread.
* `ANSWER`: the client is receiving the rest of an answer.
* `CLOSING`: the answer is sent. Further data of the client is read and dropped, so that it receives the answer.

If there are too many connections, the one that has been in its state for the longest time is closed for a new one. Each
address has a limit too; a new connection of an address at its limit replaces an older one of the same address.
"""

import math
import re
import selectors
import socket
import time
from collections.abc import Callable
from enum import Enum, auto
from http import HTTPStatus
from typing import Any

import structlog
from gunicorn.workers.gthread import TConn

from api.http.client_socket import MIN_BYTES_PER_S, SILENCE_S, BodyTooSlow, ClientSocket
from api.http.errors import STATUS_CODES, problem_for
from api.http.headers import HEADERS
from shared.errors import Place, plain_code
from shared.network.addresses import origin_of, plain_address

log = structlog.get_logger()

#: Time limit of a request's head, from its first byte or, for a new connection, from its start.
HEAD_S = 15.0
#: Time limit between an answer and the next request.
IDLE_S = 15.0
#: Time limit of a small body, and the time after which the request is tried without it.
SMALL_BODY_S, EARLY_S = 30.0, 1.0
#: Requests that may be tried without their bodies at the same time.
_MAX_EARLY = 8
#: Time limits after the last answer: without any data, and in total.
CLOSING_SILENCE_S, CLOSING_S = 5.0, 30.0
#: The largest head, and the largest body that the event loop waits for.
MAX_HEAD_BYTES, SMALL_BODY_BYTES = 32 * 1024, 64 * 1024
#: Memory limit of all unfinished requests and unsent answers together.
MAX_HELD_BYTES = 128 * 1024**2
_READ_BYTES = 64 * 1024
_CLOSE_SOME = "Your address has too many open connections. Close some, or try again later."
_TOO_MANY = plain_code("too_many_connections", _CLOSE_SOME, Place.REQUEST, status=503)
#: The shortest time between two checks of the deadlines, and between two warnings.
_CHECK_S, _WARN_S = 0.25, 60.0

_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,5})[ \t]*\r\n", re.IGNORECASE)
_EXPECT = re.compile(rb"\r\nexpect:", re.IGNORECASE)


class State(Enum):
    """The state of a connection; see the module's docstring."""

    IDLE = auto()
    HEAD = auto()
    BODY = auto()
    REQUEST = auto()
    ANSWER = auto()
    CLOSING = auto()


class Connection(TConn):  # type: ignore[misc]
    """A client's connection. Either the event loop or one thread uses it, never both."""

    sock: ClientSocket

    def __init__(self, cfg: Any, sock: ClientSocket, client: Any, server: Any) -> None:
        super().__init__(cfg, sock, client, server)
        self.parser: Any
        self.data_ready = True
        #: The client's address or network, for the limit per address; None if it is not counted.
        self.address = _origin(client[0]) if isinstance(client, tuple) else None
        self.state = State.HEAD
        self.deadline = self.closes_at = 0.0
        #: Data that has arrived and is not yet passed to a thread.
        self.buffer = bytearray()
        #: Whether the connection closes after the current answer.
        self.is_last = False
        #: The size of the complete request, and when to try it before it is complete.
        self.wanted_bytes = 0
        self.early_at = 0.0
        #: What counts towards `MAX_HELD_BYTES`.
        self.held_bytes = 0

    def prepare(self, *, is_whole: bool) -> None:
        """Prepare the connection for a thread, which first reads the data that has arrived already."""
        self.parser, self.initialized = None, False
        self.init()
        self.parser.unreader.unread(bytes(self.buffer))
        self.sock.is_body_pending = not is_whole


class Connections:
    """The connections of a worker process. Not thread-safe: only the event loop's thread may call it."""

    def __init__(
        self,
        poller: selectors.BaseSelector,
        start: Callable[[Connection], None],
        closed: Callable[[], None],
        *,
        per_address: int | None,
    ) -> None:
        """`start` passes a connection to a thread; `closed` is called once for each closed connection."""
        self._poller, self._start, self._closed = poller, start, closed
        self._per_address = per_address
        #: Connections that no thread uses; the one that has been in its state for the longest time comes first.
        self._waiting: dict[Connection, None] = {}
        self._counts: dict[str, int] = {}
        self._held_bytes = 0
        self._checks_at = self._warns_at = 0.0
        #: Connections whose request is being tried without its body.
        self._early: set[Connection] = set()

    def add(self, connection: Connection) -> None:
        """Accept a new connection."""
        if connection.address is not None:
            count = self._counts[connection.address] = self._counts.get(connection.address, 0) + 1
            if self._per_address is not None and count > self._per_address and not self.make_room(connection.address):
                self._refuse(connection, 503, _TOO_MANY, _CLOSE_SOME)
                return
        self._wait(connection, State.HEAD, HEAD_S)

    def make_room(self, address: str | None = None) -> bool:
        """Close the connection, of this address or of any, that has waited longest; return whether there was one.

        Unread data is read first. If it completes a request, the request is answered and the next connection is tried.
        """
        for connection in list(self._waiting):
            if address is None or connection.address == address:
                self._on_event(connection)
                if connection.state is State.REQUEST:
                    continue
                if connection in self._waiting:
                    self._warn("connections_full", address=address)
                    self._close(connection)
                return True
        return False

    def finished(self, connection: Connection, *, is_kept: bool) -> None:
        """Continue after a thread has answered a request."""
        self._early.discard(connection)
        rest = connection.sock.rest() if is_kept else None
        connection.buffer, connection.is_last = bytearray(rest or b""), rest is None
        self._go_on(connection)

    def await_body(self, connection: Connection) -> None:
        """Wait for the body of a request that is otherwise complete and accepted."""
        self._early.discard(connection)
        connection.early_at = math.inf
        try:
            connection.sock.let_client_continue()
        except OSError:
            self._close(connection)
            return
        self._wait(connection, State.BODY, SMALL_BODY_S)

    def check_deadlines(self, *, force: bool = False) -> None:
        """Close the connections whose time limit is over; with `force`, close all."""
        now = time.monotonic()
        if now < self._checks_at and not force:
            return
        self._checks_at = now + _CHECK_S
        for connection in list(self._waiting):
            if connection not in self._waiting:
                continue  # closed to make room
            if force:
                self._close(connection)
            elif now >= connection.deadline:
                self._expire(connection)
            elif connection.state is State.BODY and now >= connection.early_at:
                self._try_early(connection)

    def end_idle(self, deadline: float) -> None:
        """Limit the time of idle connections."""
        for connection in self._waiting:
            if connection.state is State.IDLE or (connection.state is State.HEAD and not connection.buffer):
                connection.deadline = min(connection.deadline, deadline)

    # --- what happens to a connection ---

    def _wait(self, connection: Connection, state: State, for_s: float) -> None:
        """Put a connection into a state that the event loop handles."""
        event = selectors.EVENT_WRITE if state is State.ANSWER else selectors.EVENT_READ
        self._release(connection)
        self._waiting[connection] = None
        connection.state, connection.deadline = state, time.monotonic() + for_s
        self._poller.register(connection.sock, event, lambda _: self._on_event(connection))
        self._hold(connection)

    def _release(self, connection: Connection) -> None:
        """Stop handling a connection in the event loop."""
        if connection in self._waiting:
            del self._waiting[connection]
            self._poller.unregister(connection.sock)

    def _close(self, connection: Connection) -> None:
        self._release(connection)
        self._held_bytes -= connection.held_bytes
        if (address := connection.address) is not None:
            self._counts[address] -= 1
            if not self._counts[address]:
                del self._counts[address]
        connection.close()
        self._closed()

    def _hold(self, connection: Connection) -> None:
        """Count the memory of a connection, and close others if the limit is exceeded."""
        held_bytes = len(connection.buffer) + connection.sock.unsent_bytes
        self._held_bytes += held_bytes - connection.held_bytes
        connection.held_bytes = held_bytes
        while self._held_bytes > MAX_HELD_BYTES:
            longest = next((each for each in self._waiting if each.held_bytes and each is not connection), None)
            if longest is None:
                return
            self._warn("connections_hold_too_much")
            self._close(longest)

    def _on_event(self, connection: Connection) -> None:
        """Read the bytes that the client has sent, or write as much of the answer as it accepts."""
        if connection not in self._waiting:
            return  # closed by an earlier event of the same round
        try:
            if connection.state is State.ANSWER:
                self._write(connection)
            else:
                self._read(connection)
        except BlockingIOError:
            pass
        except OSError:
            self._close(connection)

    def _write(self, connection: Connection) -> None:
        now, sent = time.monotonic(), connection.sock.flush()
        connection.deadline = min(now + SILENCE_S, connection.deadline + sent / MIN_BYTES_PER_S)
        self._hold(connection)
        if not connection.sock.unsent_bytes:
            self._go_on(connection)

    def _go_on(self, connection: Connection) -> None:
        """Send the rest of an answer; then continue with the next request, or close."""
        if connection.sock.fileno() < 0:
            self._close(connection)
        elif connection.sock.unsent_bytes:
            self._wait(connection, State.ANSWER, SILENCE_S)
        elif connection.is_last:
            connection.closes_at = time.monotonic() + CLOSING_S
            self._wait(connection, State.CLOSING, CLOSING_SILENCE_S)
            try:
                connection.sock.shutdown(socket.SHUT_WR)
            except OSError:
                self._close(connection)
        elif connection.buffer:
            self._wait(connection, State.HEAD, HEAD_S)
            self._advance(connection)
        else:
            self._wait(connection, State.IDLE, IDLE_S)

    def _read(self, connection: Connection) -> None:
        connection.sock.settimeout(0)
        data = socket.socket.recv(connection.sock, _READ_BYTES)
        if connection.state is State.CLOSING:
            connection.deadline = min(connection.closes_at, time.monotonic() + CLOSING_SILENCE_S)
        elif not data and connection.state is State.BODY:
            self._hand_over(connection, is_whole=True)  # the thread answers that the body was cut short
            return
        if not data:
            self._close(connection)
        elif connection.state is not State.CLOSING:
            connection.buffer += data
            if connection.state is State.IDLE:
                connection.state, connection.deadline = State.HEAD, time.monotonic() + HEAD_S
            self._hold(connection)
            self._advance(connection)

    def _advance(self, connection: Connection) -> None:
        """Pass a request to a thread as soon as enough of it has arrived."""
        buffer = connection.buffer
        if connection.state is State.HEAD:
            end = _end_of_head(buffer)
            if (end or len(buffer)) > MAX_HEAD_BYTES:
                self._refuse(connection, 431, STATUS_CODES[431], "The request's headers are too large.")
                return
            if end is None:
                if buffer.count(b"\n") != buffer.count(b"\r\n"):
                    self._hand_over(connection, is_whole=True)  # a bare LF, which the parser refuses
                return
            head = bytes(buffer[:end])
            connection.wanted_bytes = end + _small_body_bytes(head)
            if len(buffer) < connection.wanted_bytes:
                self._wait(connection, State.BODY, SMALL_BODY_S)
                connection.early_at = time.monotonic()
                if _EXPECT.search(head):
                    self._try_early(connection)
                else:
                    connection.early_at += EARLY_S
                return
        if len(buffer) >= connection.wanted_bytes:
            self._hand_over(connection, is_whole=True)

    def _try_early(self, connection: Connection) -> None:
        """Try a request without its body, unless too many are tried: slow clients must not use all threads."""
        if len(self._early) < _MAX_EARLY:
            self._early.add(connection)
            self._hand_over(connection, is_whole=False)

    def _hand_over(self, connection: Connection, *, is_whole: bool) -> None:
        self._release(connection)
        connection.prepare(is_whole=is_whole)
        if is_whole:
            connection.buffer = bytearray()
        self._hold(connection)
        connection.state = State.REQUEST
        self._start(connection)

    def _expire(self, connection: Connection) -> None:
        if connection.state is State.BODY:
            self._refuse(connection, 408, BodyTooSlow.code, BodyTooSlow.meaning())
        else:
            self._close(connection)

    def _refuse(self, connection: Connection, status: int, code: str, detail: str) -> None:
        """Answer with a problem, and close."""
        body = problem_for(status, detail, code)
        connection.buffer, connection.is_last = bytearray(), True
        try:
            connection.sock.sendall(head_of(status, len(body)) + body)
        except OSError:
            self._close(connection)
            return
        self._go_on(connection)

    def _warn(self, event: str, **fields: object) -> None:
        if time.monotonic() >= self._warns_at:
            self._warns_at = time.monotonic() + _WARN_S
            log.warning(event, **fields)


def head_of(status: int, byte_count: int) -> bytes:
    """Return the head of an answer that is a problem document, and the connection's last."""
    retry = "Retry-After: 5\r\n" if status == 503 else ""
    always = "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items())
    return (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nConnection: close\r\n{retry}{always}"
        f"Content-Type: application/problem+json\r\nContent-Length: {byte_count}\r\n\r\n"
    ).encode()


def _end_of_head(buffer: bytearray) -> int | None:
    """Return where a request's body begins; None where its head has not arrived."""
    start = 2 if buffer.startswith(b"\r\n") else 0  # an empty line before a request is to be ignored, RFC 9112 2.2
    if buffer.startswith(b"\r\n", start):
        return start + 2
    end = buffer.find(b"\r\n\r\n", start)
    return None if end < 0 else end + 4


def _small_body_bytes(head: bytes) -> int:
    """Return how many bytes of a body to wait for; the parser decides where the body ends."""
    found = _LENGTH.findall(head)
    length = int(found[0]) if len(found) == 1 else 0
    return length if length <= SMALL_BODY_BYTES else 0


def _origin(address: str) -> str | None:
    """Return what counts as one client; None for this machine."""
    plain = plain_address(address) or address
    return None if plain in ("127.0.0.1", "::1") else origin_of(plain)
