"""The DICOM listener: a storage SCP (C-STORE and C-ECHO, PS3.4 annexes A and B) with the same intake as HTTP.

It is a process of its own, and each association has its own threads. It answers success once the object and its rows
are durable. After any other answer the sender keeps its copy, and may send it again without harm.
"""

import logging
import signal
import ssl
import threading
import time
import warnings
from typing import Any

import pynetdicom._config
import structlog
from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from api.dicom.admission import Admission
from api.dicom.peer import Peer
from api.dicom.server import SILENCE_S, Server
from api.dicom.storage import ListenerMisconfigured, Storage
from shared.errors import TransientError
from shared.imaging.transfer_syntaxes import PACKINGS
from shared.log import configure_logging
from shared.network.addresses import bare_host, join_host_port
from shared.processes.loops import MAX_PAUSE_S, Loop
from shared.processes.process_state import StateFile
from shared.processes.readiness import Readiness, storing
from shared.processes.readiness_monitor import ReadinessMonitor
from shared.settings import Settings

log = structlog.get_logger()

#: How long running stores may take when the process is asked to stop.
GRACE_S = 30
#: The largest message that senders are asked to use.
PDU_BYTES = 128 * 1024


def run_listener(settings: Settings) -> None:
    """Receive objects until SIGTERM; raise `ListenerMisconfigured`."""
    configure_logging(settings.log_level)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with StateFile("dicom-listener") as state:
        if (listener := _wait_for_database(settings, stop)) is None:
            return
        with listener, ReadinessMonitor(listener.readiness(), state):
            log.info("dicom_listener_started", ae_title=settings.dicom_ae_title, port=listener.port)
            stop.wait()


def _wait_for_database(settings: Settings, stop: threading.Event) -> "Listener | None":
    """Make the listener once the database answers; None if `stop` is set before."""
    pause_s = 0.0
    while not stop.wait(pause_s):
        try:
            return Listener(settings)
        except TransientError as exc:
            log.warning("dicom_listener_waits", code=exc.code, detail=exc.detail)
            pause_s = min(max(2 * pause_s, 0.5), MAX_PAUSE_S)
    return None


class Listener:
    """The listening socket, and the associations of this process."""

    def __init__(self, settings: Settings) -> None:
        """Raise `ListenerMisconfigured` and `DatabaseUnavailable`; nothing listens before the context is entered."""
        _keep_quiet()
        self._settings = settings
        self.peers: set[Peer] = set()
        allowed = [title for word in settings.dicom_allowed_aes.split(",") if (title := word.strip())]
        if not allowed:
            raise ListenerMisconfigured("Nobody may send: CARINA_DICOM_ALLOWED_AES lists no application entity title.")
        self._ae = AE(settings.dicom_ae_title)
        self._ae.require_calling_aet = allowed
        self._ae.require_called_aet = True
        self._ae.maximum_associations = settings.dicom_associations
        self._ae.maximum_pdu_size = PDU_BYTES
        self._ae.acse_timeout = SILENCE_S
        self._ae.dimse_timeout = self._ae.network_timeout = SILENCE_S
        # All SOP classes are accepted: an object that is no image is refused with a code, which says more than a
        # refused context. Transfer syntaxes without a decoder are not offered, so such objects are not sent at all.
        for context in AllStoragePresentationContexts:
            self._ae.add_supported_context(str(context.abstract_syntax), list(PACKINGS))
        self._ae.add_supported_context(Verification, ALL_TRANSFER_SYNTAXES)
        self.admission = Admission(settings, allowed)
        self._tls = _tls(settings)
        self.storage = Storage.from_settings(settings)
        try:
            self._server = self._listen()
        except BaseException:
            self.storage.database.close()
            raise
        self._accepting = Loop("accept", lambda: self._server.serve_forever(0.1), every_s=0.1)

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self._server.server_address[1])

    def readiness(self) -> Readiness:
        """Return the checks of the servers that it uses."""
        storage = self.storage
        return Readiness(storing(storage.database, storage.store), wanted={"redis": storage.hints.check})

    def __enter__(self) -> "Listener":
        self._accepting.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Stop accepting connections, let running stores be answered, and end every association."""
        self.storage.stopping.set()
        self._server.shutdown()  # waits for the loop, which therefore is stopped after it
        self._accepting.stop()
        self.admission.close()
        deadline = time.monotonic() + GRACE_S
        while (self.admission.pending or self.admission.associations) and time.monotonic() < deadline:
            for peer in list(self.peers):
                peer.end_when_idle()
            time.sleep(0.02)
        self.storage.database.close()

    def _serve(self, association: Any, address: str) -> None:
        peer = Peer(self.storage, association, address)
        self.peers.add(peer)
        try:
            association.start()
            association.join()
            peer.report()
        finally:
            self.peers.discard(peer)

    def _listen(self) -> Server:
        address = (bare_host(self._settings.dicom_host), self._settings.dicom_port)
        try:
            server = self._ae.make_server(address, ssl_context=self._tls, server_class=Server)
        except OSError as exc:
            raise ListenerMisconfigured(f"{join_host_port(*address)} cannot be listened on: {exc.strerror}.") from exc
        assert isinstance(server, Server)
        server.admission, server.serve = self.admission, self._serve
        self._ae._servers.append(server)  # as AE.start_server does, which does not take a class
        return server


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
    """Silence texts that may quote patient data: pynetdicom's log, pydicom's warnings, tracebacks of threads."""
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL + 1)
    pynetdicom._config.LOG_HANDLER_LEVEL = "none"
    warnings.filterwarnings("ignore", module=r"pydicom|pynetdicom")
    threading.excepthook = lambda args: log.error("thread_failed", error=args.exc_type.__name__)
