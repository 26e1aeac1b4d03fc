"""The DICOM listener's socket, and pynetdicom's associations on the connections that were admitted."""

import contextlib
import queue
import socket
import time
from collections import deque
from collections.abc import Callable
from typing import Any, ClassVar

import structlog
from pynetdicom.association import Association
from pynetdicom.transport import AssociationSocket, RequestHandler, ThreadedAssociationServer

from api.dicom.admission import CONGESTION, LINGER_S, Admission, Caller, Refused
from shared.network.addresses import plain_address

log = structlog.get_logger()

#: How long a peer may be silent, and how long one PDU may take to arrive.
SILENCE_S = 60
#: The largest message. pynetdicom itself would collect up to 4 GiB.
MAX_PDU_BYTES = 1024**2
#: Maximum number of refused connections that are kept open to read the refusal.
_MAX_TURNED_AWAY = 128
_REPORT_EVERY_S = 10.0

#: Serves an association until it ends; gets the association and the peer's address.
Serve = Callable[[Association, str], None]


class Server(ThreadedAssociationServer):
    """pynetdicom's server, changed so that a slow peer blocks only its own thread, never the accepting one."""

    daemon_threads = True
    request_queue_size: ClassVar[int] = 128  # type: ignore[misc]
    admission: Admission
    serve: Serve

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._turned_away: deque[tuple[float, socket.socket]] = deque()
        self._turned_away_count, self._reported_at = 0, 0.0
        super().__init__(*args, **kwargs)

    def get_request(self) -> tuple[Any, Any]:
        """Accept a connection; return it and its address."""
        connection, (host, port, *more) = self.socket.accept()  # type: ignore[union-attr]
        # A socket for both families writes IPv4 addresses as IPv6.
        plain = plain_address(host) or host
        return connection, (plain, port, *more) if plain == host else (plain, port)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Give the connection a thread if the limits allow it."""
        caller = Caller(request, client_address[0])
        if not self.admission.enter(caller):
            self._turn_away(request)
            return
        try:
            super().process_request(caller, client_address)  # type: ignore[arg-type]
        except BaseException:  # no thread could be started
            self.admission.leave(caller)
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve a connection until it ends."""
        caller: Caller = request
        try:
            self._receive(caller, client_address)
        except Exception as exc:  # noqa: BLE001 - the thread's edge; the message could quote a patient's data
            log.error("dicom_connection_failed", address=caller.address, error=type(exc).__name__)
        finally:
            caller.connection.close()

    def handle_error(self, _request: Any, client_address: Any) -> None:
        """Log that a connection could not be served."""
        log.error("dicom_connection_failed", address=client_address[0])

    def shutdown_request(self, request: Any) -> None:
        """Close a connection."""
        super().shutdown_request(request.connection if isinstance(request, Caller) else request)

    def service_actions(self) -> None:
        """Close refused connections, and log their number."""
        super().service_actions()
        now = time.monotonic()
        while self._turned_away and self._turned_away[0][0] < now:
            self._turned_away.popleft()[1].close()
        if self._turned_away_count and now - self._reported_at > _REPORT_EVERY_S:
            log.warning("dicom_connections_turned_away", count=self._turned_away_count, code=CONGESTION.code)
            self._turned_away_count, self._reported_at = 0, now

    def server_close(self) -> None:
        """Close the listening socket and the refused connections."""
        super().server_close()
        while self._turned_away:
            self._turned_away.popleft()[1].close()

    def _turn_away(self, connection: socket.socket) -> None:
        self._turned_away_count += 1
        if self.ssl_context is not None:  # the peer expects TLS and could not read the message
            connection.close()
            return
        connection.setblocking(False)
        with contextlib.suppress(OSError):
            connection.send(CONGESTION.message)
            connection.shutdown(socket.SHUT_WR)
        self._turned_away.append((time.monotonic() + LINGER_S, connection))
        if len(self._turned_away) > _MAX_TURNED_AWAY:
            self._turned_away.popleft()[1].close()

    def _receive(self, caller: Caller, client_address: Any) -> None:
        try:
            request = self._read_request(caller)
        finally:
            self.admission.leave(caller)
        if request is None:
            return
        try:
            _Connection(caller.connection, client_address, self, request)
        finally:
            self.admission.release()

    def _read_request(self, caller: Caller) -> bytes | None:
        """Return the request of an admitted association; None if the connection gets none."""
        try:
            if self.ssl_context is not None:
                caller.encrypt(self.ssl_context)
            request = caller.read_request()
            self.admission.admit(request)
        except Refused as exc:
            said = {"ae_title": exc.ae_title, "address": caller.address, "code": exc.refusal.code}
            log.warning("dicom_association_rejected", **said)
            caller.part(exc.refusal.message)
            return None
        except OSError as exc:  # ssl.SSLError is one
            log.warning("dicom_connection_dropped", address=caller.address, error=type(exc).__name__)
            return None
        return request


class _Connection(RequestHandler):
    """Serves an association whose request has been read and admitted, until it ends."""

    server: Server

    def __init__(self, connection: socket.socket, client_address: Any, server: Server, request: bytes) -> None:
        self._association_request = request
        super().__init__(connection, client_address, server)

    def handle(self) -> None:
        association = self._create_association()
        # The socket below announces the connection to pynetdicom again, so drop the first event.
        association.dul.event_queue = queue.Queue()
        association.dul.socket = _Socket(association, self.request, self._association_request)
        self.request.settimeout(SILENCE_S)
        try:
            self.server.serve(association, self.client_address[0])
        finally:
            # pynetdicom leaves its thread running after an error, and the socket open if the peer closed first.
            association.dul.kill_dul()
            with contextlib.suppress(OSError):
                self.request.shutdown(socket.SHUT_RDWR)
            if association.dul.ident is not None:
                association.dul.join()
            self.request.close()


class _Socket(AssociationSocket):
    """Hands pynetdicom the request that has been read already, then PDUs of a bounded size in a bounded time."""

    def __init__(self, association: Association, connection: socket.socket, request: bytes) -> None:
        super().__init__(association, client_socket=connection)
        self._unread = bytearray(request)
        self._deadline = 0.0

    @property
    def ready(self) -> bool:
        return bool(self._unread) or super().ready

    def recv(self, nr_bytes: int) -> bytearray:
        """Return a part of a PDU: the first six bytes, which set its deadline, or the rest."""
        if self._unread:
            first, self._unread = self._unread[:nr_bytes], self._unread[nr_bytes:]
            return first
        if nr_bytes > MAX_PDU_BYTES:
            log.warning("dicom_message_refused", bytes=nr_bytes)
            raise ConnectionError
        connection = self.socket
        if connection is None:
            raise ConnectionError
        received = bytearray()
        if nr_bytes == 6:
            self._deadline = time.monotonic() + SILENCE_S
        while len(received) < nr_bytes:
            connection.settimeout(max(self._deadline - time.monotonic(), 0.001))
            part = connection.recv(min(nr_bytes - len(received), 64 * 1024))
            if not part:
                break
            received += part
        connection.settimeout(SILENCE_S)
        return received
