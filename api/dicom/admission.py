"""From a TCP connection to a DICOM association, before pynetdicom reads a byte.

An unknown peer costs one thread and the memory of one request, for at most `ASSOCIATE_S`, and the number of such peers
is limited. An association counts once a complete request with an allowed title has been read. The messages are those of
PS3.8 section 9.3.
"""

import contextlib
import socket
import ssl
import struct
import threading
import time
from collections import Counter
from dataclasses import dataclass

from pynetdicom.pdu import A_ASSOCIATE_RQ

from shared.network.addresses import origin_of
from shared.settings import Settings

#: From the connection to the last byte of the association request, with the TLS handshake. Bytes do not extend it.
ASSOCIATE_S = 10
#: How long a refused peer may take to read the reason and to close the connection.
LINGER_S = 2
#: The largest association request; 128 presentation contexts with every transfer syntax need half of it.
MAX_REQUEST_BYTES = 256 * 1024

_HEAD = struct.Struct(">BxI")
_ASSOCIATE_RQ = 0x01
#: The fixed part of a request, which contains both titles.
_MIN_REQUEST_BYTES = 74
_CALLED, _CALLING = slice(10, 26), slice(26, 42)


@dataclass(frozen=True)
class Refusal:
    """The reason why a connection gets no association, and the message to the peer."""

    code: str
    message: bytes


def _reject(code: str, result: int, source: int, reason: int) -> Refusal:
    return Refusal(code, struct.pack(">BxIxBBB", 0x03, 4, result, source, reason))


def _abort(code: str, reason: int) -> Refusal:
    return Refusal(code, struct.pack(">BxIxxBB", 0x07, 4, 2, reason))


# PS3.8 table 9-21.
TITLE_UNKNOWN = _reject("calling_title_not_recognized", 1, 1, 3)
OTHER_TITLE = _reject("called_title_not_recognized", 1, 1, 7)
CONGESTION = _reject("temporary_congestion", 2, 3, 1)
TOO_MANY = _reject("too_many_associations", 2, 3, 2)
# PS3.8 table 9-26.
NO_REQUEST = _abort("no_association_request", 2)
REQUEST_UNREADABLE = _abort("association_request_unreadable", 6)
#: The peer is still sending a message that is not read to its end, and would not read an answer.
REQUEST_TOO_LARGE = Refusal("association_request_too_large", b"")


class Refused(Exception):
    """The connection gets no association."""

    def __init__(self, refusal: Refusal, ae_title: str = "") -> None:
        super().__init__(refusal.code)
        self.refusal = refusal
        self.ae_title = ae_title


class Caller:
    """A connection without an association."""

    def __init__(self, connection: socket.socket, address: str) -> None:
        self.connection = connection
        self.address = address
        self.origin = origin_of(address)
        self.deadline = time.monotonic() + ASSOCIATE_S

    def encrypt(self, context: ssl.SSLContext) -> None:
        """Start TLS; raise `OSError`."""
        self.connection = context.wrap_socket(self.connection, server_side=True, do_handshake_on_connect=False)
        self.connection.settimeout(self._left_s())
        self.connection.do_handshake()  # the timeout is for the whole handshake

    def read_request(self) -> bytes:
        """Return the association request; raise `Refused`, or `OSError` if none arrives in time."""
        head = self._read(_HEAD.size)
        kind, byte_count = _HEAD.unpack(head)
        if kind != _ASSOCIATE_RQ:
            raise Refused(NO_REQUEST)
        if byte_count > MAX_REQUEST_BYTES:
            raise Refused(REQUEST_TOO_LARGE)
        return head + self._read(byte_count)

    def part(self, message: bytes) -> None:
        """Send a last message; close after the peer or after `LINGER_S`: an earlier close could discard the message."""
        if not message:
            self.connection.close()
            return
        self.deadline = time.monotonic() + LINGER_S
        with self.connection, contextlib.suppress(OSError):
            self.connection.settimeout(self._left_s())
            self.connection.sendall(message)
            self.connection.shutdown(socket.SHUT_WR)
            while True:
                self._read(1)

    def _read(self, byte_count: int) -> bytes:
        received = bytearray()
        while len(received) < byte_count:
            self.connection.settimeout(self._left_s())
            part = self.connection.recv(min(byte_count - len(received), 64 * 1024))
            if not part:
                raise ConnectionError("The peer has gone.")
            received += part
        return bytes(received)

    def _left_s(self) -> float:
        if (left_s := self.deadline - time.monotonic()) <= 0:
            raise TimeoutError
        return left_s


class Admission:
    """Decides by limits and titles which connections get an association. Thread-safe."""

    def __init__(self, settings: Settings, allowed_titles: list[str]) -> None:
        self._own_title = settings.dicom_ae_title.strip()
        self._allowed_titles = set(allowed_titles)
        self._max_associations = settings.dicom_associations
        self._max_pending = settings.dicom_pending
        self._max_pending_of_one = settings.dicom_pending_per_address
        self._lock = threading.Lock()
        self._pending: set[Caller] = set()
        self._by_origin: Counter[str] = Counter()
        self._associations = 0
        self._closed = False

    @property
    def pending(self) -> int:
        """The number of connections without an association."""
        return len(self._pending)

    @property
    def associations(self) -> int:
        """The number of associations."""
        return self._associations

    def enter(self, caller: Caller) -> bool:
        """Count a connection as pending until `leave`; return whether the limits allow it."""
        with self._lock:
            is_full = len(self._pending) >= self._max_pending
            if self._closed or is_full or self._by_origin[caller.origin] >= self._max_pending_of_one:
                return False
            self._pending.add(caller)
            self._by_origin[caller.origin] += 1
            return True

    def leave(self, caller: Caller) -> None:
        """Stop counting a connection as pending."""
        with self._lock:
            self._pending.remove(caller)
            self._by_origin -= Counter([caller.origin])  # drops origins with no connection left

    def admit(self, request: bytes) -> None:
        """Count an association until `release`; raise `Refused`."""
        if len(request) < _MIN_REQUEST_BYTES:
            raise Refused(REQUEST_UNREADABLE)
        called, calling = (request[title].decode("ascii", "replace").strip(" ") for title in (_CALLED, _CALLING))
        if called != self._own_title:
            raise Refused(OTHER_TITLE, calling)
        if calling not in self._allowed_titles:
            raise Refused(TITLE_UNKNOWN, calling)
        try:
            message = A_ASSOCIATE_RQ()
            message.decode(request)
            wants = message.to_primitive().presentation_context_definition_list
        except Exception as exc:  # pynetdicom raises many kinds of errors for unreadable requests
            raise Refused(REQUEST_UNREADABLE, calling) from exc
        if not wants:
            raise Refused(REQUEST_UNREADABLE, calling)
        with self._lock:
            if self._closed:
                raise Refused(CONGESTION, calling)
            if self._associations >= self._max_associations:
                raise Refused(TOO_MANY, calling)
            self._associations += 1

    def release(self) -> None:
        """Stop counting an association."""
        with self._lock:
            self._associations -= 1

    def close(self) -> None:
        """Refuse every new connection, and end those without an association."""
        with self._lock:
            self._closed = True
            for caller in self._pending:
                with contextlib.suppress(OSError):  # the peer has just closed it
                    caller.connection.shutdown(socket.SHUT_RDWR)
