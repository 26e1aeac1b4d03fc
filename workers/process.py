"""A worker process: does the work of one kind of worker, started by Celery's hints, until a signal stops it."""

import signal
import threading
from collections.abc import Callable
from contextlib import ExitStack
from functools import cached_property, partial

import structlog
from celery import Celery

from shared.database import Database
from shared.database.sizing import process_of
from shared.errors import TransientError
from shared.log import configure_logging
from shared.object_store import ObjectStore
from shared.object_store.client import MAX_REQUEST_S
from shared.processes.process_state import StateFile
from shared.processes.readiness import Readiness, storing
from shared.processes.readiness_monitor import ReadinessMonitor
from shared.queue.hints import Hints, make_celery
from shared.queue.stages import STAGES
from shared.settings import Settings
from shared.vocabulary.states import WorkerKind
from workers.heartbeat import Heartbeat
from workers.hint_listener import HintListener
from workers.wakeups import Wakeups

log = structlog.get_logger()

#: Seconds between two looks for work while hints do not arrive.
DEAF_LOOK_S = 1.0


class WorkerProcess:
    """The connections and threads of a worker process. They are closed in reverse order at its end."""

    def __init__(
        self, settings: Settings, kind: WorkerKind, *, stuck_after_s: float, device: str | None = None
    ) -> None:
        configure_logging(settings.log_level)
        self.kind = kind
        self._device = device
        self.app: Celery = make_celery(settings)
        self.database = Database.from_settings(settings, process_of(kind))
        self._settings = settings
        self.hints = Hints(settings, self.database, self.app)
        # A worker that waits for a server is not stuck. It waits for the database up to half a lease
        # (`Database.persist`), and for the object store as long as its client retries.
        waits_s = settings.lease_s / 2 + MAX_REQUEST_S
        self.heartbeat = Heartbeat(
            self.database,
            kind,
            lease_s=settings.lease_s,
            stuck_after_s=stuck_after_s + waits_s,
            slot=settings.slot,
        )
        self.stop = threading.Event()
        self.wakeups = Wakeups()
        #: Seconds between two looks for work without a hint, and between two looks while Redis fails.
        self.unasked_s = 2 * settings.sweep_interval_s
        self.deaf_s = min(DEAF_LOOK_S, self.unasked_s)
        self.closing = ExitStack()

    @cached_property
    def store(self) -> ObjectStore:
        """The object store, opened at first use: some kinds of worker do not have its keys."""
        return ObjectStore(self._settings)

    def __enter__(self) -> "WorkerProcess":
        self._state = self.closing.enter_context(StateFile(process_of(self.kind), is_stuck=self.heartbeat.is_stuck))
        self.closing.callback(self.database.close)
        if self.heartbeat.start(self._device):
            self.hints.send(WorkerKind.SWEEP, 1)
        self.closing.callback(self.heartbeat.stop)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.closing.close()

    def serve(self, work: Callable[[], None]) -> None:
        """Call `work` immediately, then at each hint, and periodically without a hint, until a signal stops it."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        listener = HintListener(self.app, self.kind, self.wakeups.ask)
        self.closing.enter_context(listener)
        monitor = self.closing.enter_context(ReadinessMonitor(self._readiness(), self._state))
        self.closing.callback(self.wakeups.stop)
        asked = failures = 0

        def patience_s() -> float:
            if failures:
                return min(DEAF_LOOK_S * (1 << failures), self.unasked_s)
            return self.unasked_s if listener.is_connected and monitor.hints_flow else self.deaf_s

        while not self.stop.is_set():
            try:
                work()
                failures = 0
            except TransientError as exc:
                log.warning("work_failed", stage=self.kind, code=exc.code, detail=exc.detail)
                failures = min(failures + 1, 10)
            except Exception as exc:
                log.error("work_failed", stage=self.kind, exc_info=exc)
                failures = min(failures + 1, 10)
            self.wakeups.done(asked)
            asked = self.wakeups.wait(patience_s)

    def _readiness(self) -> Readiness:
        stores = self.kind in (WorkerKind.INTAKE, *(stage.worker for stage in STAGES))
        needed = storing(self.database, self.store if stores else None)
        return Readiness(needed, wanted={"redis": partial(self.hints.check, self.kind)})

    def _on_signal(self, *_: object) -> None:
        self.stop.set()
        self.wakeups.stop()
