"""Makes the next batch while the previous one is on the device: claims jobs, fetches renditions and places them."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from uuid import UUID

import cv2
import structlog

from shared.database import Database
from shared.detector.fitting import FittedImage, fit_to_canvas
from shared.errors import CarinaError
from shared.imaging.rendition import read_rendition
from shared.object_store import ObjectStore, rendition_key
from shared.queue.claim import Claim, claim, ids
from shared.queue.stages import DETECT
from shared.settings import Settings
from workers.failures import record_failure, to_carina_error
from workers.heartbeat import Heartbeat
from workers.model_cache import ModelCache

log = structlog.get_logger()


@dataclass(frozen=True)
class Batch:
    """Jobs of one model with their pixels. Empty if none of the claimed images could be fetched."""

    model_id: UUID
    images: dict[Claim, FittedImage]


class Batches:
    """Makes batches. `next` runs in its own thread, beside the detection."""

    def __init__(
        self, settings: Settings, database: Database, store: ObjectStore, models: ModelCache, heartbeat: Heartbeat
    ) -> None:
        #: Jobs per claim; halved when the device runs out of memory.
        self.limit = settings.batch_size
        self._settings = settings
        self._database = database
        self._store = store
        self._models = models
        self._heartbeat = heartbeat
        self._threads = ThreadPoolExecutor(settings.fetch_threads, thread_name_prefix="fetch")
        # Images are decoded in parallel already, and more threads of OpenCV would compete with the forward pass.
        cv2.setNumThreads(1)

    def next(self) -> Batch | None:
        """Return a batch, or None if no job is ready; raise `DatabaseUnavailable`."""
        lease_s = self._settings.lease_s
        with self._database.begin() as session:
            claims = claim(session, DETECT, self._heartbeat.owner, limit=self.limit, lease_s=lease_s)
        if not claims:
            return None
        self._heartbeat.hold(claims)
        model_id = claims[0].model_id
        assert model_id is not None, "a claim for detection fixes the model"
        log.info("claimed", stage=str(DETECT), job_ids=ids(claims), model_id=str(model_id))
        try:
            canvas_px = self._models.card(model_id).canvas_px
        except CarinaError as error:
            for claimed in claims:
                self.give_back(claimed, error)
            return Batch(model_id, {})
        fetched = self._threads.map(lambda claimed: self._fetch(claimed, canvas_px), claims)
        images = {claimed: placed for claimed, placed in zip(claims, fetched, strict=True) if placed is not None}
        return Batch(model_id, images)

    def _fetch(self, claimed: Claim, canvas_px: int) -> FittedImage | None:
        try:
            png = self._store.get(rendition_key(claimed.input_sha256), sha256=claimed.input_sha256)
            return fit_to_canvas(read_rendition(png), canvas_px)
        except Exception as exc:  # noqa: BLE001 - the failure of one image must not fail its batch
            self.give_back(claimed, to_carina_error(exc))
            return None

    def give_back(self, claimed: Claim, error: CarinaError, *, alone: bool = False) -> None:
        """Record the failure of a job that cannot be detected now."""
        record_failure(self._database, self._settings, claimed, error, alone=alone)
        self._heartbeat.drop([claimed])
