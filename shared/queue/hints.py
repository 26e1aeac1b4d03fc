"""Hints: Celery messages that say "there is work for this kind of worker", and nothing else.

A lost hint loses no work, because the sweep hints again. Sending one never blocks or fails the sender.
"""

import time
from collections import Counter
from collections.abc import Iterable

import redis
import sqlalchemy as sa
import structlog
from celery import Celery
from kombu.exceptions import KombuError

from shared.database import Database
from shared.errors import DatabaseUnavailable, HintNotSent, RedisClusterUnsupported
from shared.queue.stages import STAGES
from shared.queue.workers import is_alive
from shared.redis_connection import celery_options, connect
from shared.settings import Settings
from shared.tables import Worker
from shared.vocabulary.states import JobState, WorkerKind

log = structlog.get_logger()

#: After Redis did not take a hint, no hints are sent for this long; the sweep sends them later.
QUIET_S = 5.0


def make_celery(settings: Settings) -> Celery:
    """Return the Celery application that both ends of a hint share."""
    app = Celery("carina")
    app.conf.update(
        **celery_options(settings),
        task_ignore_result=True,
        task_acks_late=False,
        task_default_queue=WorkerKind.SWEEP,
        task_routes={task_name(kind): {"queue": str(kind)} for kind in WorkerKind},
        worker_prefetch_multiplier=1,
        worker_hijack_root_logger=False,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        # A consumer that loses Redis ends, for any reason; `workers.hint_listener` starts the next one.
        broker_connection_retry=False,
        broker_connection_retry_on_startup=False,
        broker_connection_max_retries=1,
    )
    return app


def task_name(kind: WorkerKind) -> str:
    """The name of the Celery task that wakes a kind of worker."""
    return f"carina.{kind}"


class Hints:
    """Wakes workers. Thread-safe."""

    def __init__(self, settings: Settings, database: Database, app: Celery | None = None) -> None:
        self._app = app or make_celery(settings)
        self._database = database
        self._redis = connect(settings)
        #: Maximum number of rows per hint: the batch of one worker.
        self._rows_per_hint = {
            WorkerKind.SWEEP: 1,
            WorkerKind.INTAKE: settings.intake_threads,
            WorkerKind.NOTIFY: 1000,
            **{stage.worker: stage.batch_size(settings) for stage in STAGES},
        }
        self._is_down, self._quiet_until = False, 0.0

    def send_for(self, states: Iterable[JobState | str]) -> None:
        """Wake the stages that jobs of these states wait for."""
        counts = Counter(map(str, states))
        for stage in STAGES:
            self.send(stage.worker, counts[stage.waiting])

    def send(self, kind: WorkerKind, waiting: int) -> int:
        """Send min(workers, ceil(waiting / batch)) hints, less those that are still in the queue; return how many.

        Never raises if a server is unavailable: the sweep will hint again.
        """
        if waiting <= 0 or time.monotonic() < self._quiet_until:
            return 0
        if self._is_down:  # only this sender checks whether it still is
            self._quiet_until = time.monotonic() + QUIET_S
        try:
            sent = self._send(kind, waiting)
        except (HintNotSent, DatabaseUnavailable, redis.RedisError, KombuError, OSError) as exc:
            self._is_down, self._quiet_until = True, time.monotonic() + QUIET_S
            log.warning("hint_not_sent", stage=kind, error=type(exc).__name__)
            return 0
        self._is_down, self._quiet_until = False, 0.0
        return sent

    def _send(self, kind: WorkerKind, waiting: int) -> int:
        missing = -(-waiting // self._rows_per_hint[kind]) - (pending := self._pending(kind))
        if missing <= 0:  # the usual case under load, so it is decided before the database is asked
            return 0
        missing = min(missing, self._live_workers(kind) - pending)
        for _ in range(missing):
            self._app.send_task(task_name(kind), retry=False)
        return max(missing, 0)

    def close(self) -> None:
        """Close the connections that read the queues; Celery keeps its own for the process."""
        self._redis.close()

    def check(self, kind: WorkerKind = WorkerKind.PREPARE) -> None:
        """Write the bytes of a hint and remove them again; raise `HintNotSent` if Redis does not accept them.

        A PING proves too little: a replica answers it, and so does a server whose memory or disk is full.
        """
        try:
            with self._redis.pipeline(transaction=True) as commands:
                commands.lpush(str(kind), b"")
                commands.lpop(str(kind))
                commands.execute()
        except redis.exceptions.MovedError as exc:
            raise RedisClusterUnsupported from exc
        except (redis.RedisError, OSError) as exc:
            raise HintNotSent(f"Redis takes no hints: {str(exc).rstrip('.') or type(exc).__name__}.") from exc

    def _pending(self, kind: WorkerKind) -> int:
        # A hint that is still in the list will be taken after our commit, so it covers our rows too.
        return int(self._redis.llen(str(kind)))

    def _live_workers(self, kind: WorkerKind) -> int:
        alive = sa.select(sa.func.count()).where(Worker.stage == kind, is_alive())
        with self._database.begin() as session:
            return max(1, session.scalar(alive) or 0)
