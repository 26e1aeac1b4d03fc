"""The detect stage: one forward pass and one fenced commit for each batch.

While one batch is on the device, the next one is claimed and fetched and the previous one is committed, so that the
device never waits.
"""

import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import numpy as np
import sqlalchemy as sa
import structlog
import torch
from sqlalchemy.orm import Session

from shared.database import Database
from shared.detector.boxes import rescale
from shared.detector.fitting import FittedImage
from shared.detector.runtime import Detector, ImageDetections, describe_device
from shared.errors import CarinaError, DatabaseUnavailable, DetectionFailed, DeviceOutOfMemory
from shared.leases import release
from shared.queue.claim import Claim
from shared.queue.outcome import FoundBox, FoundImage, succeed
from shared.queue.stages import DETECT
from shared.settings import Settings
from shared.tables import Worker
from shared.vocabulary.states import WorkerKind
from workers.batches import Batch, Batches
from workers.heartbeat import Heartbeat
from workers.model_cache import ModelCache
from workers.process import WorkerProcess

log = structlog.get_logger()

#: The exit code of a process whose device fails even on a blank image (EX_OSERR of sysexits.h).
EXIT_DEVICE_LOST = 71


def run(settings: Settings) -> None:
    """Detect on one device until SIGTERM."""
    if settings.torch_threads:
        torch.set_num_threads(settings.torch_threads)
    device = describe_device(settings.device)
    with WorkerProcess(settings, WorkerKind.DETECT, stuck_after_s=settings.step_timeout_s, device=device) as process:
        models = ModelCache(
            process.database,
            process.store,
            lambda card, weights: Detector(card, weights, settings.device, settings.precision),
        )
        models.load_active()
        batches = Batches(settings, process.database, process.store, models, process.heartbeat)
        process.serve(
            DetectWorker(settings, process.database, models, batches, process.heartbeat, process.stop).run,
        )


class DetectWorker:
    """Detects batch after batch until none is ready."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        models: ModelCache,
        batches: Batches,
        heartbeat: Heartbeat,
        stop: threading.Event,
    ) -> None:
        self._settings = settings
        self._database = database
        self._models = models
        self._batches = batches
        self._heartbeat = heartbeat
        self._stop = stop
        self._fetcher = ThreadPoolExecutor(1, thread_name_prefix="next-batch")
        self._committer = ThreadPoolExecutor(1, thread_name_prefix="commit")

    def run(self) -> None:
        """Work until nothing is ready or the stop flag is set; then release all leases."""
        committing: Future[None] = self._committer.submit(lambda: None)
        upcoming = self._fetcher.submit(self._batches.next)
        try:
            while (batch := upcoming.result()) is not None and not self._stop.is_set():
                upcoming = self._fetcher.submit(self._batches.next)
                found, step_s = self._step(batch)
                committing.result()
                committing = self._committer.submit(self._commit, found, step_s)
            committing.result()
        except DatabaseUnavailable:
            log.warning("claim_failed", stage=str(DETECT))
        finally:
            running: list[Future[Any]] = [upcoming, committing]
            wait(running)
            self._hand_back(self._heartbeat.held())

    def _step(self, batch: Batch) -> tuple[dict[Claim, FoundImage], float]:
        try:
            detector = self._models.detector(batch.model_id)
        except CarinaError as error:
            for claimed in batch.images:
                self._batches.give_back(claimed, error)
            return {}, 0.0
        started = time.perf_counter()
        detected = self._detect(detector, list(batch.images.items()))
        step_s = time.perf_counter() - started
        return {claimed: _in_original_pixels(claimed, placed, found) for claimed, placed, found in detected}, step_s

    def _detect(
        self, detector: Detector, images: Sequence[tuple[Claim, FittedImage]]
    ) -> list[tuple[Claim, FittedImage, ImageDetections]]:
        """Run the detector. A failing batch is halved until the image that causes the failure is alone."""
        self._heartbeat.mark_progress()
        try:
            results = detector.detect([placed for _, placed in images])
            return [(*image, result) for image, result in zip(images, results, strict=True)]
        except DeviceOutOfMemory as exc:
            self._batches.limit = max(1, min(self._batches.limit, len(images) // 2))
            log.warning("batch_halved", limit=self._batches.limit)
            error: CarinaError = exc
        except Exception as exc:
            log.warning("step_failed", batch=len(images), exc_info=exc)
            error = DetectionFailed(f"The forward pass failed on this image: {type(exc).__name__}.")
        if len(images) > 1:
            middle = len(images) // 2
            return self._detect(detector, images[:middle]) + self._detect(detector, images[middle:])
        if images:
            if not isinstance(error, DeviceOutOfMemory):
                self._end_if_the_device_is_lost(detector)
            self._batches.give_back(images[0][0], error, alone=True)
        return []

    def _end_if_the_device_is_lost(self, detector: Detector) -> None:
        # After some CUDA errors every call in this process fails. Only a new process helps.
        try:
            detector.detect([detector.fit_to_canvas(np.zeros((64, 64), np.uint8))])
        except Exception as exc:
            log.critical("device_lost", exc_info=exc)
            os._exit(EXIT_DEVICE_LOST)

    def _commit(self, found: dict[Claim, FoundImage], step_s: float) -> None:
        def change(session: Session) -> int:
            ours = succeed(session, found)
            mine = sa.update(Worker).where(Worker.id == self._heartbeat.owner)
            session.execute(
                mine.values(
                    model_id=next(iter(found)).model_id,
                    batches=Worker.batches + 1,
                    images=Worker.images + len(found),
                    step_s=Worker.step_s + step_s,
                )
            )
            return len(ours)

        if not found:
            return
        try:
            committed = self._database.persist(change, within_s=self._settings.lease_s / 2)
            log.info("batch_committed", size=len(found), committed=committed, step_s=round(step_s, 4))
        except DatabaseUnavailable:
            log.warning("commit_failed", size=len(found))  # the leases expire, and the jobs are claimed again
        finally:
            self._heartbeat.drop(found)

    def _hand_back(self, claims: Sequence[Claim]) -> None:
        if not claims:
            return
        try:
            with self._database.begin() as session:
                release(session, claims)
        except DatabaseUnavailable:
            log.warning("release_failed", size=len(claims))
        self._heartbeat.drop(claims)


def _in_original_pixels(claimed: Claim, placed: FittedImage, found: ImageDetections) -> FoundImage:
    rendition_px, original_px = (placed.width_px, placed.height_px), (claimed.width_px, claimed.height_px)
    boxes = rescale([detection.box_xyxy_px for detection in found.detections], rendition_px, original_px).tolist()
    found_boxes = [
        FoundBox(detection.category_id, detection.category_name, detection.score, tuple(box))
        for detection, box in zip(found.detections, boxes, strict=True)
    ]
    return FoundImage(found_boxes, found.abnormality)
