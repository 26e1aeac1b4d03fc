"""How much of the bare model's pace is left of a whole detect worker: claim, fetch, decode, place, detect, commit."""

import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial

import sqlalchemy as sa
import torch

from shared.database import Database
from shared.detector.fitting import FittedImage
from shared.detector.runtime import Detector
from shared.imaging.rendition import read_rendition
from shared.models import registry
from shared.object_store import ObjectStore, rendition_key
from shared.settings import Settings
from shared.tables import Job, Worker
from tests.bench.detect_worker import detect_worker
from tests.bench.figure import Figure
from tests.bench.queue_rows import add_demo_model, add_jobs, store_renditions
from tests.bench.servers import servers

#: A backlog: the first batch of a round, which nothing runs beside, is one of ten.
IMAGES = 160
BATCH = 16
ROUNDS = 2


def measure() -> Iterator[Figure]:
    """The shipped model on this machine's device, in turn bare and under the worker, on the same images.

    On a CPU the forward pass gets all cores but one: what else a worker does would otherwise take its time from the
    device itself, as it does not from a GPU.
    """
    with servers() as settings:
        threads = max(1, len(os.sched_getaffinity(0)) - 1)
        settings = settings.model_copy(update={"batch_size": BATCH, "torch_threads": threads})
        database = Database.from_settings(settings)
        add_demo_model(settings, database)
        digests = store_renditions(settings, IMAGES)
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            paces = pool.submit(_work, settings, digests).result()
        with database.begin() as session:
            done = session.scalar(sa.select(sa.func.count()).select_from(Job).where(Job.state == "succeeded"))
            step_s = session.scalar(sa.select(sa.func.sum(Worker.step_s))) or 0.0
        database.close()
    if done != ROUNDS * IMAGES:
        raise RuntimeError(f"{done} of {ROUNDS * IMAGES} jobs succeeded")
    bare_per_s, worker_per_s = (ROUNDS * IMAGES / seconds for seconds in (paces.bare_s, paces.worker_s))
    yield Figure("bare loop", bare_per_s, "images/s")
    yield Figure("one worker", worker_per_s, "images/s")
    yield Figure("one worker, of the bare loop", worker_per_s / bare_per_s, target=0.95)
    yield Figure("of which the device was busy", step_s / paces.worker_s)


@dataclass(frozen=True)
class _Paces:
    #: Seconds for `ROUNDS` times `IMAGES` images.
    bare_s: float
    worker_s: float


def _work(settings: Settings, digests: Sequence[str]) -> _Paces:
    """Take turns, so that a neighbour's load falls on both. Runs in a process of its own."""
    torch.set_num_threads(settings.torch_threads)
    load = partial(Detector, device=settings.device, precision=settings.precision)
    with detect_worker(settings, load) as worker:
        with worker.database.begin() as session:
            model = registry.active(session)
            assert model is not None
            detector = worker.models.detector(model.id)
        store = ObjectStore(settings)
        pngs = (store.get(rendition_key(digest), sha256=digest) for digest in digests)
        images = [detector.fit_to_canvas(read_rendition(png)) for png in pngs]
        detector.detect(images[:BATCH])  # so that kernels are chosen
        bare_s, worker_s = [_bare(detector, images)], []
        for _ in range(ROUNDS):
            add_jobs(worker.database, IMAGES, renditions=digests)
            begun = time.monotonic()
            worker.detect.run()
            worker_s.append(time.monotonic() - begun)
            bare_s.append(_bare(detector, images))
        # Both are what one round takes on average, but for the bare loop that one comes first and last.
        return _Paces(sum(bare_s) * ROUNDS / len(bare_s), sum(worker_s))


def _bare(detector: Detector, images: Sequence[FittedImage]) -> float:
    begun = time.monotonic()
    for first in range(0, len(images), BATCH):
        detector.detect(images[first : first + BATCH])
    return time.monotonic() - begun
