"""A worker process: Celery delivers hints to one stage, one at a time, until a signal says stop."""

import os
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import structlog
from celery import Celery, signals
from celery.beat import Scheduler

from shared.database import Database
from shared.log import configure_logging
from shared.loops import Loop
from shared.object_store import ObjectStore
from shared.queue.hints import Hints, make_celery, task_name
from shared.queue.states import Stage
from shared.settings import Settings
from workers.heartbeat import Heartbeat

log = structlog.get_logger()

#: Where to say that this process takes work, for whoever started it.
READY_FILE = "CARINA_READY_FILE"
#: Between two looks for messages to send.
NOTIFY_LOOK_S = 1.0


def run_prepare(settings: Settings) -> None:
    """Prepare images until SIGTERM."""
    from shared.imaging.chest_classifier.classifier import load_classifier
    from shared.imaging.isolation import DecoderPool
    from workers.prepare import Prepare

    load_classifier(settings.chest_classifier_folder)  # a faulty one is to be known now, not by the first image
    with _Process(settings, Stage.PREPARE, stuck_after_s=2 * settings.decode_timeout_s) as process:
        pool = DecoderPool(
            settings.prepare_threads,
            settings.decode_timeout_s,
            threads=settings.decode_threads,
            classifier_folder=settings.chest_classifier_folder,
        )
        decoders = process.closing.enter_context(pool)
        prepare = Prepare(
            settings,
            process.database,
            ObjectStore(settings),
            process.hints,
            process.heartbeat,
            decoders,
            process.stop,
        )
        process.serve(prepare.run)


def run_detect(settings: Settings) -> None:
    """Detect on one device until SIGTERM."""
    import torch

    from shared.detector.runtime import Detector, describe_device
    from workers.batches import Batches
    from workers.detect import Detect
    from workers.shelf import Shelf

    if settings.torch_threads:
        torch.set_num_threads(settings.torch_threads)
    device = describe_device(settings.device)
    with _Process(settings, Stage.DETECT, stuck_after_s=settings.step_timeout_s, device=device) as process:
        store = ObjectStore(settings)
        shelf = Shelf(
            process.database,
            store,
            lambda card, weights: Detector(card, weights, settings.device, settings.precision),
        )
        shelf.load_active()
        batches = Batches(settings, process.database, store, shelf, process.heartbeat)
        process.serve(
            Detect(settings, process.database, shelf, batches, process.heartbeat, process.stop).run,
        )


def run_intake(settings: Settings) -> None:
    """Take in the files of bulk submissions until SIGTERM."""
    from shared.incoming import Incoming
    from workers.intake import Receive

    with _Process(settings, Stage.INTAKE, stuck_after_s=settings.step_timeout_s) as process:
        receive = Receive(
            settings,
            process.database,
            Incoming(settings),
            process.hints,
            process.heartbeat,
            process.stop,
        )
        process.serve(receive.run)


def run_notify(settings: Settings) -> None:
    """Send messages to webhooks until SIGTERM."""
    from workers.notify import Notify

    with _Process(settings, Stage.NOTIFY, stuck_after_s=settings.step_timeout_s) as process:
        # Whoever ends a job has no time to hint at its messages; an idle look is one query.
        process.unasked_s = min(NOTIFY_LOOK_S, process.unasked_s)
        process.serve(Notify(settings, process.database, process.heartbeat, process.stop).run)


def run_beat(settings: Settings) -> None:
    """Sweep at every tick until SIGTERM. Any number of these may run."""
    from shared.incoming import Incoming
    from workers.garbage import Garbage
    from workers.sweep import sweep

    with _Process(settings, Stage.SWEEP, stuck_after_s=settings.step_timeout_s) as process:
        clock = Scheduler(process.app)
        ticking = Loop("clock", clock.tick, every_s=min(1.0, settings.sweep_interval_s / 4))
        process.closing.callback(ticking.stop)
        ticking.start()

        garbage = Garbage(settings, process.database, Incoming(settings))

        def tick() -> None:
            sweep(settings, process.database, process.hints, process.heartbeat.owner)
            garbage.collect_when_due()

        process.serve(tick)


class _Process:
    """What every worker process has, closed in reverse order at its end."""

    def __init__(self, settings: Settings, stage: Stage, *, stuck_after_s: float, device: str | None = None) -> None:
        configure_logging(settings.log_level)
        self.stage = stage
        self._device = device
        self.app: Celery = make_celery(settings)
        self.database = Database.from_settings(settings)
        self.hints = Hints(settings, self.database, self.app)
        self.heartbeat = Heartbeat(self.database, stage, lease_s=settings.lease_s, stuck_after_s=stuck_after_s)
        self.stop = threading.Event()
        #: How often to look for work that nobody hinted at.
        self.unasked_s = 2 * settings.sweep_interval_s
        self.closing = ExitStack()

    def __enter__(self) -> "_Process":
        self.closing.callback(self.database.close)
        self.heartbeat.start(self._device)
        self.closing.callback(self.heartbeat.stop)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.closing.close()

    def serve(self, work: Callable[[], None]) -> None:
        """Call `work` once for each hint, one after the other, until a signal; return when the last call has."""
        busy = threading.Lock()

        def on_hint() -> None:
            with busy:
                work()

        def look() -> None:
            # After Redis was away Celery's consumer may stay deaf; then work is found later, but it is found.
            if busy.acquire(blocking=False):
                try:
                    work()
                finally:
                    busy.release()

        self.app.task(name=task_name(self.stage))(on_hint)
        looking = Loop("look", look, every_s=self.unasked_s)
        self.closing.callback(looking.stop)
        self.closing.callback(self.stop.set)
        looking.start()

        def ready(**_: object) -> None:
            # There may be work that was hinted at while nobody listened.
            self.hints.send(self.stage, 1)
            if path := os.environ.get(READY_FILE):
                Path(path).touch()

        signals.worker_ready.connect(ready, weak=False)
        signals.worker_shutting_down.connect(lambda **_: self.stop.set(), weak=False)
        self.app.worker_main(
            [
                "--quiet",
                "worker",
                "--pool=threads",
                "--concurrency=1",
                f"--queues={self.stage}",
                f"--hostname={self.stage}-{os.getpid()}@%h",
                "--without-gossip",
                "--without-mingle",
                "--without-heartbeat",
                "--loglevel=warning",
            ]
        )
