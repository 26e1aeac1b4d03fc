"""How close a detect worker comes to its device, commit included, when the device is a sleep."""

import multiprocessing
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier
from typing import cast

import numpy as np
import sqlalchemy as sa

from shared.database import Database
from shared.detector.card import ModelCard
from shared.detector.fitting import FittedImage, fit_to_canvas
from shared.detector.runtime import Detection, Detector, ImageDetections
from shared.queue.claim import Claim
from shared.settings import Settings
from shared.tables import Detection as DetectionRow
from shared.tables import Job, Worker
from tests.bench.detect_worker import detect_worker
from tests.bench.figure import Figure
from tests.bench.queue_rows import RENDITION_PX, add_demo_model, add_jobs, store_renditions
from tests.bench.servers import servers
from workers.batches import Batches

JOBS = 3000
BATCH = 16
STEP_S = 0.05
FOUND_PER_IMAGE = 10
IDEAL_PER_S = BATCH / STEP_S
#: As many images as make a difference to no cache, yet are soon drawn.
IMAGES = 16


def measure() -> Iterator[Figure]:
    """One worker and two with placed pixels in memory, then one that fetches, decodes and places renditions."""
    with servers() as settings:
        settings = settings.model_copy(update={"batch_size": BATCH})
        database = Database.from_settings(settings)
        add_demo_model(settings, database)
        one = _run(settings, database, 1, InMemory)
        yield Figure(f"one worker, {JOBS} jobs, placed pixels in memory", one.jobs_per_s, "jobs/s")
        yield Figure(f"of the ideal {IDEAL_PER_S:.0f} jobs/s", one.jobs_per_s / IDEAL_PER_S, target=0.90)
        yield Figure("mean batch", one.mean_batch, "jobs", target=15)
        two = _run(settings, database, 2, InMemory)
        yield Figure("two workers of one", two.jobs_per_s / one.jobs_per_s, "times", target=1.9)
        renditions = store_renditions(settings, IMAGES)
        fetching = _run(settings, database, 1, Batches, renditions)
        yield Figure("with renditions fetched, decoded and placed, of the ideal", fetching.jobs_per_s / IDEAL_PER_S)
        yield Figure("CPU of a worker with pixels in memory", one.cpu_ms_per_job, "ms a job")
        yield Figure("CPU of a worker that fetches, decodes and places", fetching.cpu_ms_per_job, "ms a job")
        database.close()


class FakeDevice:
    """Detects nothing in particular, at the pace of a device that leaves the CPU alone."""

    def __init__(self, card: ModelCard) -> None:
        category = card.category_of(1)
        self._found = ImageDetections(
            tuple(
                Detection(category.id, category.name, 0.9 - 0.05 * rank, (10.0 * rank, 20.0, 10.0 * rank + 50, 90.0))
                for rank in range(FOUND_PER_IMAGE)
            )
        )

    def detect(self, batch: Sequence[FittedImage]) -> list[ImageDetections]:
        """Take one step, whatever the size of the batch."""
        time.sleep(STEP_S)
        return [self._found] * len(batch)


class InMemory(Batches):
    """Has every image's pixels at hand, decoded and placed."""

    def _fetch(self, claimed: Claim, canvas_px: int) -> FittedImage:
        return _FITTED


_FITTED = fit_to_canvas(np.zeros(RENDITION_PX, np.uint8), 448)


@dataclass(frozen=True)
class _Outcome:
    jobs_per_s: float
    mean_batch: float
    #: Of the workers' own processes.
    cpu_ms_per_job: float


def _run(
    settings: Settings,
    database: Database,
    workers: int,
    batches: type[Batches],
    renditions: Sequence[str] = ("0" * 64,),
) -> _Outcome:
    """Time the workers from their first claim to their last commit."""
    add_jobs(database, JOBS, renditions=renditions)
    with database.begin() as session:
        session.execute(sa.delete(Worker))
        before = _counts(session)
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, spawn, _meet, (spawn.Barrier(workers),)) as pool:
        runs = [future.result() for future in [pool.submit(_work, settings, batches) for _ in range(workers)]]
    took_s = max(run.ended for run in runs) - min(run.begun for run in runs)
    with database.begin() as session:
        done, found = (after - count for after, count in zip(_counts(session), before, strict=True))
        batch_count = session.scalar(sa.select(sa.func.sum(Worker.batches))) or 0
    if (done, found) != (JOBS, JOBS * FOUND_PER_IMAGE):
        raise RuntimeError(f"{done} of {JOBS} jobs succeeded, with {found} detections")
    return _Outcome(JOBS / took_s, JOBS / int(batch_count), 1000 * sum(run.cpu_s for run in runs) / JOBS)


def _counts(session: sa.orm.Session) -> tuple[int, int]:
    succeeded = sa.select(sa.func.count()).select_from(Job).where(Job.state == "succeeded")
    found = sa.select(sa.func.count()).select_from(DetectionRow)
    return session.scalar(succeeded) or 0, session.scalar(found) or 0


# --- in the worker's process -----------------------------------------------------------------------------------------

_barrier: Barrier


def _meet(barrier: Barrier) -> None:
    global _barrier
    _barrier = barrier


@dataclass(frozen=True)
class _Run:
    #: On a clock that all processes share, in seconds.
    begun: float
    ended: float
    cpu_s: float


def _work(settings: Settings, batches: type[Batches]) -> _Run:
    """Detect until nothing is ready."""
    with detect_worker(settings, lambda card, _: cast(Detector, FakeDevice(card)), batches) as worker:
        _barrier.wait()
        begun, begun_cpu_s = time.monotonic(), time.process_time()
        worker.detect.run()
        return _Run(begun, time.monotonic(), time.process_time() - begun_cpu_s)
