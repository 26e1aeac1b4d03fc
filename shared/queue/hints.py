"""Hints: Celery messages that say "there is work in this stage", and nothing else.

Losing one loses nothing, for the sweep hints again; sending one never holds up or fails whoever sends it.
"""

import time
from datetime import timedelta

import redis
import sqlalchemy as sa
import structlog
from celery import Celery
from kombu.exceptions import KombuError

from shared.database import Database
from shared.errors import DatabaseUnavailable, HintNotSent, RedisClusterUnsupported
from shared.redis_connection import celery_options, connect
from shared.settings import Settings
from shared.tables import Worker
from shared.vocabulary.states import Stage

log = structlog.get_logger()

#: A worker that has not been seen for this long counts as gone.
SEEN_WITHIN = timedelta(seconds=90)
#: After Redis failed to take a hint, the next ones are left to the sweep for this long.
QUIET_S = 5.0


def make_celery(settings: Settings) -> Celery:
    """Return the Celery application that both ends of a hint share."""
    app = Celery("carina")
    app.conf.update(
        **celery_options(settings),
        task_ignore_result=True,
        task_acks_late=False,
        task_default_queue=Stage.SWEEP,
        task_routes={task_name(stage): {"queue": str(stage)} for stage in Stage},
        worker_prefetch_multiplier=1,
        worker_hijack_root_logger=False,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        # A consumer that loses Redis ends, for any reason; `workers.listening` starts the next one.
        broker_connection_retry=False,
        broker_connection_retry_on_startup=False,
        broker_connection_max_retries=1,
    )
    return app


def task_name(stage: Stage) -> str:
    """The name of the Celery task that wakes a stage."""
    return f"carina.{stage}"


def is_alive() -> sa.ColumnElement[bool]:
    """The condition under which a worker's row stands for a process that lives."""
    return sa.and_(Worker.stopped_at.is_(None), Worker.seen_at > sa.func.now() - SEEN_WITHIN)


class Hints:
    """Wakes workers. Thread-safe."""

    def __init__(self, settings: Settings, database: Database, app: Celery | None = None) -> None:
        self._app = app or make_celery(settings)
        self._database = database
        self._redis = connect(settings)
        #: Jobs that one hint stands for: what a worker of the stage takes at a time.
        self._jobs_per_hint = {
            Stage.PREPARE: settings.prepare_threads,
            Stage.DETECT: settings.batch_size,
            Stage.SWEEP: 1,
            Stage.INTAKE: settings.intake_threads,
            Stage.NOTIFY: 1000,
        }
        self._is_down, self._quiet_until = False, 0.0

    def send(self, stage: Stage, waiting: int) -> int:
        """Send min(workers, ceil(waiting / batch)) hints, less those that nobody has taken yet; return how many.

        Never raises for a server that is down: the sweep will hint again.
        """
        if waiting <= 0 or time.monotonic() < self._quiet_until:
            return 0
        if self._is_down:  # this sender finds out whether it still is, and no other
            self._quiet_until = time.monotonic() + QUIET_S
        try:
            sent = self._send(stage, waiting)
        except (HintNotSent, DatabaseUnavailable, redis.RedisError, KombuError, OSError) as exc:
            self._is_down, self._quiet_until = True, time.monotonic() + QUIET_S
            log.warning("hint_not_sent", stage=stage, error=type(exc).__name__)
            return 0
        self._is_down, self._quiet_until = False, 0.0
        return sent

    def _send(self, stage: Stage, waiting: int) -> int:
        missing = -(-waiting // self._jobs_per_hint[stage]) - (pending := self._pending(stage))
        if missing <= 0:  # the usual thing under load, and so it is known before the database is asked
            return 0
        missing = min(missing, self._live_workers(stage) - pending)
        for _ in range(missing):
            self._app.send_task(task_name(stage), retry=False)
        return max(missing, 0)

    def close(self) -> None:
        """Close the connections that look at what is waiting; Celery keeps its own for the process."""
        self._redis.close()

    def check(self, stage: Stage = Stage.PREPARE) -> None:
        """Write what a hint would write, and take it back; raise `HintNotSent` where Redis does not take it.

        A PING proves too little: a replica answers it, and so does a server whose memory or disk is full.
        """
        try:
            with self._redis.pipeline(transaction=True) as commands:
                commands.lpush(str(stage), b"")
                commands.lpop(str(stage))
                commands.execute()
        except redis.exceptions.MovedError as exc:
            raise RedisClusterUnsupported from exc
        except (redis.RedisError, OSError) as exc:
            raise HintNotSent(f"Redis takes no hints: {str(exc).rstrip('.') or type(exc).__name__}.") from exc

    def _pending(self, stage: Stage) -> int:
        # A hint still in the list will be taken after our commit, so it stands for our jobs too.
        return int(self._redis.llen(str(stage)))

    def _live_workers(self, stage: Stage) -> int:
        alive = sa.select(sa.func.count()).where(Worker.stage == stage, is_alive())
        with self._database.begin() as session:
            return max(1, session.scalar(alive) or 0)
