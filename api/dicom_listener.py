"""DICOM's own way in: a storage SCP (C-STORE and C-ECHO, PS3.4 annexes A and B) on the intake that HTTP uses.

A process of its own. Success is answered once the object and its rows are durable; anything else makes the sender keep
its copy, and sending that again is harmless. An association is served by threads of its own.
"""

import logging
import signal
import ssl
import struct
import threading
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, ClassVar

import pynetdicom._config
import sqlalchemy as sa
import structlog
from pydicom.dataset import Dataset
from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts, evt
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]
from pynetdicom.transport import RequestHandler, ThreadedAssociationServer

from shared import audit
from shared.addresses import bare_host, join_host_port, plain_address
from shared.database import Database
from shared.errors import CarinaError, ImageTooLarge, NotAnImage, PermanentError, TransientError
from shared.imaging.header import ImageHeader
from shared.imaging.transfer_syntaxes import PACKINGS
from shared.intake import HEADER_BYTES, Intake
from shared.log import configure_logging
from shared.lookout import Lookout
from shared.loops import Loop
from shared.object_store import ObjectStore
from shared.process_state import StateFile
from shared.queue.hints import Hints
from shared.readiness import Readiness, storing
from shared.settings import Settings
from shared.tables import Project

log = structlog.get_logger()

#: A peer that has connected has so long to ask for an association.
ASSOCIATE_S = 10
#: A peer that sends or takes nothing for this long is gone.
SILENCE_S = 60
#: How long objects that are being stored may take when the process is asked to end.
GRACE_S = 30
#: Workers are woken after so many objects, or once this much time has passed.
HINT_OBJECTS, HINT_S = 16, 1.0
#: Of the messages that senders are asked to cut objects into.
PDU_BYTES = 128 * 1024
#: Of any message, whatever it says: pynetdicom gathers up to 4 GiB, also of one who has yet to ask for an association.
MOST_PDU_BYTES = 1024**2
#: Of the commands before an object, which are some hundred bytes and parsed whole.
MOST_COMMAND_BYTES = 64 * 1024

# PS3.4 table B.2-1.
SUCCESS, OUT_OF_RESOURCES, MISMATCH, CANNOT_UNDERSTAND = 0x0000, 0xA700, 0xA900, 0xC000
# PS3.7 annex C.
PROCESSING_FAILURE, SOP_CLASS_NOT_SUPPORTED = 0x0110, 0x0122


class ListenerMisconfigured(CarinaError):
    """The DICOM listener cannot start as it is set up."""

    code = "listener_misconfigured"


class IdentifierMismatch(PermanentError):
    """The data set is another object, or of another kind, than the message says."""

    code = "identifier_mismatch"


def run_listener(settings: Settings) -> None:
    """Take in objects until SIGTERM; raise `ListenerMisconfigured`."""
    configure_logging(settings.log_level)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with Listener(settings) as listener, listener.describe():
        log.info("dicom_listener_started", ae_title=settings.dicom_ae_title, port=listener.port)
        stop.wait()


class Listener:
    """The listening socket, the connections of this process, and the associations at present."""

    def __init__(self, settings: Settings) -> None:
        """Raise `ListenerMisconfigured` and `DatabaseUnavailable`; nothing listens before the context is entered."""
        _keep_quiet()
        self.settings = settings
        #: A film of the most pixels that are allowed, at 32 bits each.
        self.max_object_bytes = min(settings.max_upload_bytes, 4 * settings.max_image_pixels + HEADER_BYTES)
        self.stopping = threading.Event()
        self.peers: set[_Peer] = set()
        allowed = [title for word in settings.dicom_allowed_aes.split(",") if (title := word.strip())]
        if not allowed:
            raise ListenerMisconfigured("Nobody may send: CARINA_DICOM_ALLOWED_AES lists no application entity title.")
        self._ae = AE(settings.dicom_ae_title)
        self._ae.require_calling_aet = allowed
        self._ae.require_called_aet = True
        self._ae.maximum_associations = settings.dicom_associations
        self._ae.maximum_pdu_size = PDU_BYTES
        self._ae.acse_timeout = ASSOCIATE_S
        self._ae.dimse_timeout = self._ae.network_timeout = SILENCE_S
        # Whatever is no image is refused by a code of its own, which says more than an association without it. What
        # packs its pixels in a way that nothing here unpacks is refused before it is sent.
        for context in AllStoragePresentationContexts:
            self._ae.add_supported_context(str(context.abstract_syntax), list(PACKINGS))
        self._ae.add_supported_context(Verification, ALL_TRANSFER_SYNTAXES)
        self._tls = _tls(settings)
        self.database, self.store = Database.from_settings(settings), ObjectStore(settings)
        self.hints = Hints(settings, self.database)
        try:
            self.project_id = self._find_project()
            self._server = self._listen()
        except BaseException:
            self.database.close()
            raise
        self._accepting = Loop("accept", lambda: self._server.serve_forever(0.1), every_s=0.1)

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_address[1])

    @contextmanager
    def describe(self) -> Iterator[None]:
        """Keep the process' state file while the context lasts."""
        readiness = Readiness(storing(self.database, self.store), wanted={"redis": self.hints.check})
        with StateFile("dicom-listener") as state, Lookout(readiness, state):
            yield

    def __enter__(self) -> "Listener":
        self._accepting.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        """Accept nobody any more, let what is being stored be answered, and end every association."""
        self.stopping.set()
        self._accepting.ask_to_stop()
        self._server.shutdown()
        self._accepting.stop()
        deadline = time.monotonic() + GRACE_S
        while self.peers and time.monotonic() < deadline:
            for peer in list(self.peers):
                peer.end_when_idle()
            time.sleep(0.02)
        self.database.close()

    def intake(self) -> Intake:
        """Return the way in for one association."""
        return Intake(self.settings, self.database, self.store, self.hints, self.project_id)

    def _find_project(self) -> Any:
        name = self.settings.dicom_project
        with self.database.begin() as session:
            project_id = session.scalar(sa.select(Project.id).where(Project.name == name))
        if project_id is None:
            raise ListenerMisconfigured(
                f"There is no project {name!r}, which CARINA_DICOM_PROJECT names: `carina key create` makes one."
            )
        return project_id

    def _listen(self) -> "_Server":
        address = (bare_host(self.settings.dicom_host), self.settings.dicom_port)
        try:
            server = self._ae.make_server(
                address, ssl_context=self._tls, server_class=_Server, request_handler=_Connection
            )
        except OSError as exc:
            raise ListenerMisconfigured(f"{join_host_port(*address)} cannot be listened on: {exc.strerror}.") from exc
        assert isinstance(server, _Server)
        server.listener = self
        self._ae._servers.append(server)  # as AE.start_server does, which takes no class
        return server


class _Server(ThreadedAssociationServer):
    """pynetdicom's server; but what a peer can hold up is its own thread, never the one that accepts."""

    daemon_threads = True
    request_queue_size: ClassVar[int] = 128  # type: ignore[misc]
    listener: Listener

    def get_request(self) -> tuple[Any, Any]:
        connection, (host, port, *more) = self.socket.accept()  # type: ignore[union-attr]
        # A socket for both families writes IPv4 addresses as IPv6.
        plain = plain_address(host) or host
        return connection, (plain, port, *more) if plain == host else (plain, port)

    def finish_request(self, request: Any, client_address: Any) -> None:
        request.settimeout(SILENCE_S)
        if self.ssl_context is not None:
            try:
                request = self.ssl_context.wrap_socket(request, server_side=True)
            except OSError as exc:
                log.warning("dicom_tls_refused", address=client_address[0], error=type(exc).__name__)
                request.close()
                return
        super().finish_request(request, client_address)

    def handle_error(self, _request: Any, client_address: Any) -> None:
        log.error("dicom_connection_failed", address=client_address[0])


class _Connection(RequestHandler):
    """Serves one connection from its beginning to its end, on a thread of its own."""

    server: _Server

    def handle(self) -> None:
        listener, association = self.server.listener, self._create_association()
        _bound_messages(association, self.client_address[0])
        peer = _Peer(listener, association, self.client_address[0])
        listener.peers.add(peer)
        try:
            association.start()
            association.join()
            peer.report()
        finally:
            listener.peers.discard(peer)
            self.request.close()  # pynetdicom leaves it open where the peer has gone first


def _bound_messages(association: Any, address: str) -> None:
    """Have the connection end where a message is announced that is longer than any may be."""
    receive = association.dul.socket.recv

    def bounded(byte_count: int) -> bytearray:
        if byte_count > MOST_PDU_BYTES:
            log.warning("dicom_message_refused", address=address, bytes=byte_count)
            raise ConnectionError
        received: bytearray = receive(byte_count)
        return received

    vars(association.dul.socket)["recv"] = bounded


class _Peer:
    """One association: what its objects came to. Only `end_when_idle` is called from elsewhere than its threads."""

    def __init__(self, listener: Listener, association: Any, address: str) -> None:
        self._listener = listener
        self._association = association
        self._address = address
        self._intake = listener.intake()
        self._outcomes: Counter[str] = Counter()
        self._byte_count = 0
        self._started = time.monotonic()
        #: Whether an object is being stored whose sender has not been answered.
        self._busy = False
        self._unhinted, self._hinted_at = 0, time.monotonic()
        #: Of the message that is coming in.
        self._message_bytes = self._command_bytes = 0
        #: Whether the association ends because of one that was too large.
        self._cut_off = False
        association.bind(evt.EVT_C_STORE, self._on_store)
        association.bind(evt.EVT_DATA_RECV, self._on_data)
        association.bind(evt.EVT_DIMSE_RECV, self._on_message)
        association.bind(evt.EVT_DIMSE_SENT, self._on_answer)

    def end_when_idle(self) -> None:
        """Abort the association unless an object is being stored."""
        if not self._busy:
            self._association.abort()

    def report(self) -> None:
        """Say what was done: hints, a line of the log, a row of the audit."""
        self._intake.send_hints()
        title = str(self._association.requestor.ae_title or "").strip()
        said = {"ae_title": title, "address": self._address}
        if self._association.is_rejected:
            log.warning("dicom_association_rejected", **said)
        elif self._outcomes:
            seconds = round(time.monotonic() - self._started, 3)
            log.info(
                "dicom_association", **said, outcomes=dict(self._outcomes), bytes=self._byte_count, seconds=seconds
            )
            try:
                self._listener.database.persist(
                    lambda session: audit.record(
                        session,
                        action="dicom.store",
                        subject=self._outcomes,
                        project_id=self._listener.project_id,
                        actor=f"ae:{title}",
                        remote_address=self._address,
                    ),
                    within_s=GRACE_S,
                )
            except CarinaError as exc:
                log.error("audit_failed", **said, error=exc.code)

    def _on_store(self, event: evt.Event) -> Dataset:
        self._busy = True
        if self._listener.stopping.is_set():
            return _answer(OUT_OF_RESOURCES, "stopping")
        if self._cut_off:
            return _answer(CANNOT_UNDERSTAND, ImageTooLarge.code)
        try:
            outcome = self._store(event)
        except CarinaError as exc:
            self._outcomes[exc.code] += 1
            return _answer(_status_of(exc), exc.code)
        except Exception as exc:
            log.error("dicom_store_failed", exc_info=exc)
            self._outcomes[CarinaError.code] += 1
            return _answer(PROCESSING_FAILURE, CarinaError.code)
        self._outcomes[outcome] += 1
        self._unhinted += 1
        if self._unhinted >= HINT_OBJECTS or time.monotonic() - self._hinted_at >= HINT_S:
            self._intake.send_hints()
            self._unhinted, self._hinted_at = 0, time.monotonic()
        return _answer(SUCCESS)

    def _store(self, event: evt.Event) -> str:
        request: Any = event.request
        said = request.AffectedSOPClassUID, request.AffectedSOPInstanceUID

        def check(header: ImageHeader) -> None:
            if (header.sop_class_uid, header.sop_instance_uid) != said:
                raise IdentifierMismatch

        received = self._intake.receive(iter([event.encoded_dataset()]), check=check)
        self._byte_count += received.byte_count
        return received.outcome

    def _on_data(self, event: evt.Event) -> None:
        """Keep an object that never ends from filling the memory."""
        self._message_bytes += len(event.data)
        self._command_bytes += _count_command(event.data)
        too_large = self._message_bytes > self._listener.max_object_bytes or self._command_bytes > MOST_COMMAND_BYTES
        if too_large and not self._cut_off:
            self._cut_off = True
            self._outcomes[ImageTooLarge.code] += 1
            event.assoc.abort(block=False)

    def _on_message(self, _: evt.Event) -> None:
        self._message_bytes = self._command_bytes = 0

    def _on_answer(self, _: evt.Event) -> None:
        self._busy = False


def _count_command(message: bytes) -> int:
    """How many bytes of a command a P-DATA-TF message carries, PS3.8 section 9.3.5 and annex E.2."""
    if message[:1] != b"\x04":
        return 0
    position, count = 6, 0
    while position + 6 <= len(message):
        (length,) = struct.unpack_from(">I", message, position)
        count += length if message[position + 5] & 1 else 0
        position += 4 + length
    return count


def _status_of(error: CarinaError) -> int:
    match error:
        case NotAnImage():
            return SOP_CLASS_NOT_SUPPORTED
        case IdentifierMismatch():
            return MISMATCH
        case PermanentError():
            return CANNOT_UNDERSTAND
        case TransientError():
            return OUT_OF_RESOURCES  # which senders take for a reason to try again
        case _:
            return PROCESSING_FAILURE


def _answer(status: int, comment: str = "") -> Dataset:
    answer = Dataset()
    answer.Status = status
    if comment:
        answer.ErrorComment = comment
    return answer


def _tls(settings: Settings) -> ssl.SSLContext | None:
    if not settings.dicom_tls_certificate:
        if settings.dicom_tls_key or settings.dicom_tls_ca:
            raise ListenerMisconfigured("TLS wants CARINA_DICOM_TLS_CERTIFICATE.")
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(settings.dicom_tls_certificate, settings.dicom_tls_key or None)
        if settings.dicom_tls_ca:
            context.load_verify_locations(settings.dicom_tls_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except OSError as exc:  # ssl.SSLError is one
        raise ListenerMisconfigured(f"The TLS files cannot be used: {exc.strerror or exc}.") from exc
    return context


def _keep_quiet() -> None:
    """Silence what would quote a patient's data: pynetdicom's log, pydicom's warnings, tracebacks of threads."""
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL + 1)
    pynetdicom._config.LOG_HANDLER_LEVEL = "none"
    warnings.filterwarnings("ignore", module=r"pydicom|pynetdicom")
    threading.excepthook = lambda args: log.error("thread_failed", error=args.exc_type.__name__)
