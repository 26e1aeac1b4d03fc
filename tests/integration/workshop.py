"""Jobs in the database and workers in this process, put together as a test needs them."""

import hashlib
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from uuid import UUID

import cv2
import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from shared.database import Database
from shared.detector.card import ModelCard
from shared.detector.fitting import FittedImage
from shared.detector.runtime import Detector, ImageDetections
from shared.imaging.isolation import DecoderPool
from shared.models import registry
from shared.object_store import ObjectStore, original_key, rendition_key
from shared.queue.claim import Claim, claim
from shared.queue.hints import Hints
from shared.queue.stages import Stage
from shared.settings import Settings
from shared.tables import Detection as DetectionRow
from shared.tables import Image, Job, Project, Study
from shared.version import RENDITION_VERSION
from shared.vocabulary.states import JobState, WorkerKind
from tests.synthetic_dicom import make_dicom, make_image
from tests.waiting import wait_for
from workers.batches import Batches
from workers.detect import DetectWorker
from workers.heartbeat import Heartbeat
from workers.model_cache import ModelCache
from workers.prepare import PrepareWorker
from workers.sweep import sweep
from workers.wakeups import Wakeups

HEIGHT_PX, WIDTH_PX = 96, 80
#: On a canvas it is known by its white corner.
MARKED = np.full((HEIGHT_PX, WIDTH_PX), 255, np.uint8)


def grey_image(number: int) -> NDArray[np.uint8]:
    """An 8-bit image that no other number makes."""
    grey = (make_image(HEIGHT_PX, WIDTH_PX) >> 4).astype(np.uint8)
    grey[number % 50, number // 50] ^= 255
    return np.roll(grey, 7 * number, axis=number % 2)


def dicom(number: int) -> bytes:
    """A DICOM file with that image."""
    return make_dicom(grey_image(number), SOPInstanceUID=f"1.2.{number}", StudyInstanceUID=f"1.3.{number}")


def is_marked(placed: FittedImage) -> bool:
    return bool(placed.canvas[:8, :8].min() == 255)


class Watched(Detector):
    """A real detector that lets a test look at each batch first; the test may wait, or raise."""

    def __init__(self, card: ModelCard, weights: bytes, before: Callable[[Sequence[FittedImage]], object]) -> None:
        super().__init__(card, weights, "cpu", "fp32")
        self._before = before

    def detect(self, batch: Sequence[FittedImage]) -> list[ImageDetections]:
        self._before(batch)
        return super().detect(batch)


class Workshop:
    """This test's jobs and workers."""

    def __init__(self, settings: Settings, database: Database, store: ObjectStore, hints: Hints) -> None:
        self.settings, self.database, self.store, self.hints = settings, database, store, hints
        with database.begin() as session:
            session.add(project := Project(name="workshop"))
            session.flush()
            self.project_id = project.id

    # --- jobs --------------------------------------------------------------------------------------------------------

    def queue(self, *files: bytes, **columns: object) -> list[UUID]:
        """Store files; make a queued job for each."""
        for file in files:
            self.store.put(original_key(hashlib.sha256(file).hexdigest()), file)
        return [self._add(hashlib.sha256(file).hexdigest(), JobState.QUEUED, columns) for file in files]

    def ready(self, *images: NDArray[np.uint8], **columns: object) -> list[UUID]:
        """Store images as renditions; make a job for each that waits for detect."""
        jobs = []
        for pixels in images:
            png = cv2.imencode(".png", pixels)[1].tobytes()
            sha256 = hashlib.sha256(png).hexdigest()
            self.store.put(rendition_key(sha256), png)
            rendition = {"rendition_sha256": sha256, "rendition_version": RENDITION_VERSION}
            jobs.append(self._add(sha256, JobState.READY, columns, **rendition))
        return jobs

    def rows(self, count: int, state: JobState = JobState.READY, **columns: object) -> list[UUID]:
        """Make jobs whose pixels nobody will ask for."""
        digests = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(count)]
        return [self._add(digest, state, columns, rendition_sha256=digest) for digest in digests]

    def _add(self, sha256: str, state: JobState, columns: dict[str, object], **image_columns: object) -> UUID:
        with self.database.begin() as session:
            session.add(study := Study(project_id=self.project_id))
            session.flush()
            image = Image(
                project_id=self.project_id,
                study_id=study.id,
                sha256=sha256,
                byte_count=1,
                media_type="application/dicom",
                height_px=HEIGHT_PX,
                width_px=WIDTH_PX,
                **image_columns,
            )
            session.add(image)
            session.flush()
            job = Job(project_id=self.project_id, image_id=image.id, study_id=study.id, state=state, **columns)
            session.add(job)
            session.flush()
            return job.id

    def job(self, job_id: UUID) -> Job:
        """The job as it is now."""
        with self.database.begin() as session:
            job = session.get_one(Job, job_id)
            session.expunge(job)
            return job

    def set(self, job_id: UUID, **columns: object) -> None:
        """Change a job behind everybody's back."""
        with self.database.begin() as session:
            session.execute(sa.update(Job).where(Job.id == job_id).values(**columns))

    def sweep_until_renewed(self, job_id: UUID) -> None:
        """Sweep, as beat does, until the job's holder has renewed its lease."""
        first = self.job(job_id)
        assert first.lease_expires_at is not None

        def is_renewed() -> bool:
            sweep(self.settings, self.database, self.hints, "beat")
            job = self.job(job_id)
            assert (job.lease_owner, job.attempt) == (first.lease_owner, first.attempt)
            return job.lease_expires_at > first.lease_expires_at

        wait_for(is_renewed, pause_s=0.1)

    def states(self, jobs: Sequence[UUID]) -> list[str]:
        return [self.job(job_id).state for job_id in jobs]

    def found(self, job_id: UUID) -> list[DetectionRow]:
        """The job's detections, the best first."""
        rows = sa.select(DetectionRow).where(DetectionRow.job_id == job_id).order_by(DetectionRow.rank)
        with self.database.begin() as session:
            found = list(session.scalars(rows))
            session.expunge_all()
            return found

    # --- workers -----------------------------------------------------------------------------------------------------

    def claim(self, stage: Stage, owner: str = "worker", *, limit: int = 100, lease_s: float = 60) -> list[Claim]:
        with self.database.begin() as session:
            return claim(session, stage, owner, limit=limit, lease_s=lease_s)

    def promote(self, card: ModelCard, weights: bytes) -> UUID:
        """Register a model and make it the active one."""
        with self.database.begin() as session:
            return registry.promote(session, registry.register(session, self.store, card, weights).id).id

    @contextmanager
    def preparing(
        self,
        decoders: DecoderPool | None = None,
        stop: threading.Event | None = None,
        wakeups: Wakeups | None = None,
        **changed: object,
    ) -> Iterator[PrepareWorker]:
        """A prepare worker under these settings."""
        settings = self.settings.model_copy(update=changed)
        pool = decoders or DecoderPool(settings.prepare_threads, settings.decode_timeout_s)
        with self._alive(WorkerKind.PREPARE, settings) as heartbeat, pool:
            yield PrepareWorker(
                settings,
                self.database,
                ObjectStore(settings),
                self.hints,
                heartbeat,
                pool,
                stop or threading.Event(),
                wakeups or Wakeups(),
            )

    @contextmanager
    def detecting(
        self,
        before: Callable[[Sequence[FittedImage]], object] = lambda _: None,
        stop: threading.Event | None = None,
        **changed: object,
    ) -> Iterator[DetectWorker]:
        """A detect worker under these settings; `before` sees each batch."""
        settings = self.settings.model_copy(update=changed)
        with self._alive(WorkerKind.DETECT, settings) as heartbeat:
            store = ObjectStore(settings)
            models = ModelCache(self.database, store, lambda card, weights: Watched(card, weights, before))
            batches = Batches(settings, self.database, store, models, heartbeat)
            yield DetectWorker(settings, self.database, models, batches, heartbeat, stop or threading.Event())

    @contextmanager
    def _alive(self, kind: WorkerKind, settings: Settings) -> Iterator[Heartbeat]:
        heartbeat = Heartbeat(self.database, kind, lease_s=settings.lease_s, stuck_after_s=settings.step_timeout_s)
        heartbeat.start()
        try:
            yield heartbeat
        finally:
            heartbeat.stop()
