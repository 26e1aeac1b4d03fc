"""A detect worker as `workers.detect` assembles it, less the message that wakes it."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from shared.database import Database
from shared.log import configure_logging
from shared.object_store import ObjectStore
from shared.settings import Settings
from shared.vocabulary.states import WorkerKind
from workers.batches import Batches
from workers.detect import DetectWorker
from workers.heartbeat import Heartbeat
from workers.model_cache import Load, ModelCache


@dataclass(frozen=True)
class Worker:
    """The parts that a bench looks at."""

    database: Database
    models: ModelCache
    detect: DetectWorker


@contextmanager
def detect_worker(settings: Settings, load: Load, make_batches: type[Batches] = Batches) -> Iterator[Worker]:
    """Bring up a worker whose model is loaded. It logs as it always does, to nowhere: have a process for it alone."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    configure_logging("info")
    database = Database.from_settings(settings)
    store = ObjectStore(settings)
    models = ModelCache(database, store, load)
    models.load_active()
    heartbeat = Heartbeat(database, WorkerKind.DETECT, lease_s=settings.lease_s, stuck_after_s=settings.step_timeout_s)
    heartbeat.start()
    batches = make_batches(settings, database, store, models, heartbeat)
    try:
        yield Worker(database, models, DetectWorker(settings, database, models, batches, heartbeat, threading.Event()))
    finally:
        heartbeat.stop()
        database.close()
