"""One association of the DICOM listener: stores its objects, answers them, and reports them at the end."""

import struct
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

import structlog
from pydicom.dataset import Dataset
from pynetdicom import evt
from sqlalchemy.orm import Session

from api.dicom.server import SILENCE_S
from api.dicom.storage import Storage
from shared.access import audit
from shared.access.quotas import QuotaExceeded
from shared.errors import CarinaError, ImageTooLarge, NotAnImage, PermanentError, Place, TransientError
from shared.imaging.header import ImageHeader
from shared.intake.receive import Received

log = structlog.get_logger()

#: How long the audit row may take to be written.
AUDIT_S = 30
#: A hint is sent to workers after this many objects or seconds.
HINT_OBJECTS, HINT_S = 16, 1.0
#: The slowest rate of an object that has taken longer than `SILENCE_S`: slower senders would block an association.
MIN_BYTES_PER_S = 8 * 1024
#: A sender must await each answer before its next object, but pynetdicom would keep any number in memory.
MAX_UNANSWERED = 4
#: The largest command before an object. Commands have some hundred bytes and are parsed as a whole.
MAX_COMMAND_BYTES = 64 * 1024

#: Outcomes of stored objects; their audit rows are written in their own transactions.
_TAKEN = ("accepted", "duplicate")

# PS3.4 table B.2-1.
SUCCESS, OUT_OF_RESOURCES, MISMATCH, CANNOT_UNDERSTAND = 0x0000, 0xA700, 0xA900, 0xC000
#: A warning: after a failure, senders would leave out the remaining images of the study.
ELEMENTS_DISCARDED = 0xB006
# PS3.7 annex C.
PROCESSING_FAILURE = 0x0110


class IdentifierMismatch(PermanentError):
    """The data set's SOP class or instance UID differs from that of the C-STORE message."""

    code = "identifier_mismatch"
    places = Place.FILE


class Peer:
    """One association and the outcomes of its objects. Only `end_when_idle` may be called from other threads."""

    def __init__(self, storage: Storage, association: Any, address: str) -> None:
        self._storage = storage
        self._association = association
        self._address = address
        self._intake = storage.intake()
        self._outcomes: Counter[str] = Counter()
        self._byte_count = 0
        self._started = time.monotonic()
        #: Whether an object is in progress whose sender has not been answered.
        self._busy = False
        self._unhinted, self._hinted_at = 0, time.monotonic()
        #: The size of the message that is arriving, and the time when it began.
        self._message_bytes = self._command_bytes = 0
        self._message_began = 0.0
        #: Objects and commands that have arrived and are not answered yet.
        self._unanswered = 0
        #: The code of the error for which the association is ended.
        self._cut_off = ""
        association.bind(evt.EVT_C_STORE, self._on_store)
        association.bind(evt.EVT_DATA_RECV, self._on_data)
        association.bind(evt.EVT_DIMSE_RECV, self._on_message)
        association.bind(evt.EVT_DIMSE_SENT, self._on_answer)

    def end_when_idle(self) -> None:
        """Abort the association unless an object is being stored."""
        if not self._busy:
            self._association.abort()

    def report(self) -> None:
        """Send the hints, log the outcomes, and record refused objects in the audit."""
        self._intake.send_hints()
        said = {"ae_title": self._title, "address": self._address}
        if self._association.is_rejected:
            log.warning("dicom_association_rejected", **said)
        elif self._outcomes:
            seconds = round(time.monotonic() - self._started, 3)
            log.info(
                "dicom_association", **said, outcomes=dict(self._outcomes), bytes=self._byte_count, seconds=seconds
            )
            if refused := {code: count for code, count in self._outcomes.items() if code not in _TAKEN}:
                try:
                    self._storage.database.persist(lambda session: self._record(session, refused), within_s=AUDIT_S)
                except CarinaError as exc:
                    log.error("audit_failed", **said, error=exc.code)

    @property
    def _title(self) -> str:
        return str(self._association.requestor.ae_title or "").strip()

    def _record(self, session: Session, subject: Mapping[str, object]) -> None:
        audit.record(
            session,
            action="dicom.store",
            subject=subject,
            project_id=self._storage.project_id,
            actor=f"ae:{self._title}",
            remote_address=self._address,
        )

    def _on_store(self, event: evt.Event) -> Dataset:
        self._busy = True
        if self._storage.stopping.is_set():
            return _answer(OUT_OF_RESOURCES, "stopping")
        if self._cut_off:
            return _answer(CANNOT_UNDERSTAND, self._cut_off)
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
        said = [str(uid).strip(" \0") for uid in (request.AffectedSOPClassUID, request.AffectedSOPInstanceUID)]

        def check(header: ImageHeader) -> None:
            if [header.sop_class_uid, header.sop_instance_uid] != said:
                raise IdentifierMismatch

        def also(session: Session, received: Received) -> None:
            self._record(session, {received.outcome: 1, "study_id": received.study_id, "image_id": received.image_id})

        received = self._intake.receive(iter([event.encoded_dataset()]), check=check, also=also)
        self._byte_count += received.byte_count
        return received.outcome

    def _on_data(self, event: evt.Event) -> None:
        """End the association if an object is too large or too slow."""
        if not self._message_bytes:
            self._message_began = time.monotonic()
        self._message_bytes += len(event.data)
        self._command_bytes += _count_command(event.data)
        seconds = time.monotonic() - self._message_began
        if self._message_bytes > self._storage.max_object_bytes or self._command_bytes > MAX_COMMAND_BYTES:
            self._cut(ImageTooLarge.code)
        elif seconds > SILENCE_S and self._message_bytes < seconds * MIN_BYTES_PER_S:
            self._cut("sender_too_slow")

    def _on_message(self, _: evt.Event) -> None:
        self._message_bytes = self._command_bytes = 0
        self._unanswered += 1
        if self._unanswered > MAX_UNANSWERED:
            self._cut("answer_not_awaited")

    def _on_answer(self, _: evt.Event) -> None:
        self._busy = False
        self._unanswered -= 1

    def _cut(self, code: str) -> None:
        if not self._cut_off:
            self._cut_off = code
            self._outcomes[code] += 1
            self._association.abort(block=False)


def _count_command(message: bytes) -> int:
    """Return how many bytes of a command a P-DATA-TF message carries, PS3.8 section 9.3.5 and annex E.2."""
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
            return ELEMENTS_DISCARDED
        case IdentifierMismatch():
            return MISMATCH
        case PermanentError():
            return CANNOT_UNDERSTAND
        case TransientError() | QuotaExceeded():
            return OUT_OF_RESOURCES  # senders try again later
        case _:
            return PROCESSING_FAILURE


def _answer(status: int, comment: str = "") -> Dataset:
    answer = Dataset()
    answer.Status = status
    if comment:
        answer.ErrorComment = comment
    return answer
