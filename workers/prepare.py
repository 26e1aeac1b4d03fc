"""The prepare stage: creates the rendition of an original, the 8-bit PNG for training and detection."""

import hashlib
import threading

import structlog
from sqlalchemy.orm import Session

from shared.database import Database
from shared.erasure import discard, hold_object
from shared.errors import CarinaError, DecoderCrashed, DecoderProcessLost, PermanentError
from shared.imaging.chest_classifier.classifier import load_classifier
from shared.imaging.isolation import DecoderPool
from shared.object_store import ObjectStore, original_key, rendition_key
from shared.queue.claim import Claim, claim, ids
from shared.queue.hints import Hints
from shared.queue.outcome import StoredRendition, mark_ready, refuse
from shared.queue.stages import PREPARE
from shared.settings import Settings
from shared.vocabulary.states import WorkerKind
from workers.failures import record_failure, to_carina_error
from workers.heartbeat import Heartbeat
from workers.process import WorkerProcess
from workers.slots import Slots
from workers.suitability import kept, refusal
from workers.wakeups import Wakeups

log = structlog.get_logger()


def run(settings: Settings) -> None:
    """Prepare images until SIGTERM."""
    load_classifier(settings.chest_classifier_folder)  # so that an invalid classifier fails now, not at the first image
    with WorkerProcess(settings, WorkerKind.PREPARE, stuck_after_s=2 * settings.decode_timeout_s) as process:
        pool = DecoderPool(
            settings.prepare_threads,
            settings.decode_timeout_s,
            threads=settings.decode_threads,
            classifier_folder=settings.chest_classifier_folder,
            required=settings.required_protections,
        )
        decoders = process.closing.enter_context(pool)
        if settings.required_protections:
            decoders.protections()
        prepare = PrepareWorker(
            settings,
            process.database,
            process.store,
            process.hints,
            process.heartbeat,
            decoders,
            process.stop,
            process.wakeups,
        )
        process.serve(prepare.run)


class PrepareWorker:
    """Prepares images, several at a time, until none is queued."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        store: ObjectStore,
        hints: Hints,
        heartbeat: Heartbeat,
        decoders: DecoderPool,
        stop: threading.Event,
        wakeups: Wakeups,
    ) -> None:
        self._settings = settings
        self._database = database
        self._store = store
        self._hints = hints
        self._heartbeat = heartbeat
        self._decoders = decoders
        self._stop = stop
        self._slots = Slots(settings.prepare_threads, "prepare", wakeups)

    def run(self) -> None:
        """Claim and prepare images until none is queued or the stop flag is set. Started jobs are always finished."""
        self._slots.run(self._claim, self._prepare)

    def _claim(self, limit: int) -> list[Claim]:
        if self._stop.is_set():
            return []
        lease_s = self._settings.lease_s
        try:
            with self._database.begin() as session:
                claims = claim(session, PREPARE, self._heartbeat.owner, limit=limit, lease_s=lease_s)
        except CarinaError as error:
            log.warning("claim_failed", stage=str(PREPARE), code=error.code)
            return []
        self._heartbeat.hold(claims)
        if claims:
            log.info("claimed", stage=str(PREPARE), job_ids=ids(claims))
        return claims

    def _prepare(self, claimed: Claim) -> None:
        try:
            rendition = self._render(claimed)
            refused = refusal(self._settings.suitability, rendition.facts)
            ours = self._database.persist(
                lambda session: self._commit(session, claimed, rendition, refused), within_s=self._settings.lease_s / 2
            )
            if not ours:
                log.info("result_dropped", job_id=str(claimed.job_id))
            elif refused:
                log.info("image_refused", job_id=str(claimed.job_id), code=refused.code)
            if not refused:
                self._hints.send_for([PREPARE.done])
        except Exception as exc:  # noqa: BLE001 - the worker's loop: an error belongs to the job
            # After a lost decoder, the job is retried alone. If the decoder is lost again, the image is the cause.
            error = DecoderCrashed() if isinstance(exc, DecoderProcessLost) and claimed.alone else to_carina_error(exc)
            record_failure(self._database, self._settings, claimed, error, alone=True)
        finally:
            self._heartbeat.drop([claimed])

    def _commit(
        self, session: Session, claimed: Claim, rendition: StoredRendition, refused: PermanentError | None
    ) -> bool:
        key = rendition_key(rendition.sha256)
        hold_object(session, self._store, key)
        if refused:
            return refuse(session, claimed, rendition, refused)
        if mark_ready(session, claimed, rendition):
            return True
        discard(session, key)  # the job was cancelled or its image erased; the object stays if an image has it
        return False

    def _render(self, claimed: Claim) -> StoredRendition:
        original = self._store.get(original_key(claimed.input_sha256), sha256=claimed.input_sha256)
        rendition = self._decoders.render(
            original,
            rendition_px=self._settings.rendition_px,
            max_image_pixels=self._settings.max_image_pixels,
        )
        sha256 = hashlib.sha256(rendition.png).hexdigest()
        self._store.put(rendition_key(sha256), rendition.png)
        return StoredRendition(
            sha256=sha256,
            version=rendition.version,
            height_px=rendition.height_px,
            width_px=rendition.width_px,
            original_height_px=rendition.original_height_px,
            original_width_px=rendition.original_width_px,
            byte_count=len(rendition.png),
            facts=kept(self._settings.suitability, rendition.facts),
        )
