"""The trainer: takes one task after the other and runs the processes that do it.

A task is a leased row, not a message. Its processes can be killed at any time: their checkpoints are in the object
store, and this trainer or another one continues the task.
"""

import signal
import threading
import time
from contextlib import suppress

import sqlalchemy as sa
import structlog

from shared.database import Database
from shared.errors import DatabaseUnavailable, Place, plain_code
from shared.log import configure_logging
from shared.object_store import ObjectStore
from shared.processes.loops import run_steps
from shared.processes.owners import make_owner
from shared.processes.process_state import StateFile
from shared.processes.readiness import Readiness, storing
from shared.processes.readiness_monitor import ReadinessMonitor
from shared.queue.workers import end_leases_of_ended, mark_seen, mark_stopped
from shared.settings import Settings
from shared.training.checkpoints import CHECKPOINTS, unneeded
from shared.training.tasks import TaskClaim, claim_task, expire_tasks, interrupt_task, lose_task, renew_task
from shared.vocabulary.states import TaskState, WorkerKind
from trainer.launch import command_of, follow
from trainer.task_process import TaskProcess, last_error

log = structlog.get_logger()

SEEN_EVERY_S = 20.0
#: Time for the processes of a task that has succeeded to exit before they are killed.
LAST_WORDS_S = 30.0
_RENEW_S = 1.0

TASK_CRASHED = plain_code("trainer_process_lost", "The process of the task died, in every attempt.", Place.TASK)


def run_trainer(settings: Settings) -> None:
    """Take tasks until SIGTERM; on a machine that is not the leading one, join the trainings of the leading machine."""
    configure_logging(settings.log_level)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    database = Database.from_settings(settings, "trainer")
    readiness = Readiness(storing(database, ObjectStore(settings)))
    try:
        if settings.trainer_node_rank > 0:
            with StateFile("trainer") as state, ReadinessMonitor(readiness, state):
                follow(settings, database, stop)
        else:
            agent = Agent(settings, database, stop)
            with StateFile("trainer", is_stuck=agent.is_stuck) as state, ReadinessMonitor(readiness, state):
                agent.run()
    finally:
        database.close()


class Agent:
    """One trainer: at most one task at a time."""

    def __init__(self, settings: Settings, database: Database, stop: threading.Event) -> None:
        self.owner = make_owner(WorkerKind.TRAIN, settings.slot)
        self._settings = settings
        self._database = database
        self._store = ObjectStore(settings)
        self._stop = stop
        self._seen_at = -SEEN_EVERY_S
        self._looked_at = time.monotonic()

    def is_stuck(self) -> bool:
        """Return whether it has neither looked for a task nor watched its current one for too long."""
        return time.monotonic() - self._looked_at > max(
            self._settings.trainer_stuck_s, 3 * self._settings.trainer_poll_s
        )

    def run(self) -> None:
        """Look for tasks and do them until the stop flag is set."""
        with suppress(DatabaseUnavailable), self._database.begin() as session:
            self._mark_seen(session)
            # Take back the tasks of this trainer's predecessor now, before their leases expire.
            end_leases_of_ended(session, self.owner)
            lost = expire_tasks(session, max_attempts=self._settings.max_attempts)
            log.info("trainer_started", tasks_taken_back=lost)
        run_steps("trainer", self._step, self._stop, every_s=self._settings.trainer_poll_s)
        with suppress(DatabaseUnavailable), self._database.begin() as session:
            mark_stopped(session, self.owner)

    def _step(self) -> bool:
        """Do a task if there is one. Returns whether to look for the next one immediately."""
        self._looked_at = time.monotonic()
        with self._database.begin() as session:
            self._mark_seen(session)
            claim = claim_task(session, self.owner, lease_s=self._settings.lease_s)
        if claim is None:
            return False
        self._do(claim)
        return True

    def _mark_seen(self, session: sa.orm.Session) -> None:
        if time.monotonic() - self._seen_at >= SEEN_EVERY_S:
            mark_seen(session, self.owner, WorkerKind.TRAIN)
            self._seen_at = time.monotonic()

    def _do(self, claim: TaskClaim) -> None:
        """Start the task's processes, renew its lease while they run, and update its row when they have ended."""
        log.info("task_started", task=claim.kind, task_id=str(claim.task_id), attempt=claim.attempt)
        process = TaskProcess(command_of(claim, self._settings))
        try:
            ours = self._renew_while_running(claim, process)
        finally:
            code = process.end()
        self._database.persist(
            lambda session: self._record_end(session, claim, process, ours), within_s=self._settings.lease_s
        )
        self._clean_up(claim)
        log.info("task_ended", task=claim.kind, task_id=str(claim.task_id), exit_code=code, ours=ours)

    def _renew_while_running(self, claim: TaskClaim, process: TaskProcess) -> bool:
        """Renew the lease until the processes end or hang. Returns whether this trainer still owns the task."""
        kept_at = moved_at = time.monotonic()
        asked, progress = False, None
        while process.is_running(_RENEW_S):
            self._looked_at = time.monotonic()
            if self._stop.is_set() and not asked:
                asked = True
                process.ask_to_stop()
            try:
                with self._database.begin() as session:
                    self._mark_seen(session)
                    tail = process.new_log_tail()
                    ours = renew_task(session, claim, lease_s=self._settings.lease_s, log_tail=tail)
                    row = session.get_one(claim.table, claim.task_id)
                    state, before, progress = row.state, progress, row.progress
            except DatabaseUnavailable:
                if time.monotonic() - kept_at > self._settings.lease_s:
                    return False
                continue
            if not ours:
                if state == TaskState.SUCCEEDED:
                    process.is_running(LAST_WORDS_S)  # about to exit
                return False
            kept_at = time.monotonic()
            if tail is not None or progress != before:
                moved_at = kept_at
            elif kept_at - moved_at > self._settings.trainer_stuck_s:
                log.error("task_stuck", task=claim.kind, task_id=str(claim.task_id))
                return True
        return True

    def _clean_up(self, claim: TaskClaim) -> None:
        """Delete the checkpoints that a training no longer needs after its end."""
        if claim.kind != "training":
            return
        keys = list(self._store.keys(f"{CHECKPOINTS}{claim.task_id}/"))
        with self._database.begin() as session:
            found = unneeded(session, keys, days=self._settings.checkpoint_days)
        for key in found:
            self._store.delete(key)

    def _record_end(self, session: sa.orm.Session, claim: TaskClaim, process: TaskProcess, ours: bool) -> None:
        """Store the end of the log, and return the task to the queue if its processes did not finish it."""
        tail = process.log_tail()
        own_attempt = sa.and_(claim.table.id == claim.task_id, claim.table.attempt == claim.attempt)
        session.execute(sa.update(claim.table).where(own_attempt).values(log_tail=tail))
        if not ours:
            return
        if process.was_asked_to_stop or process.exit_code == 0:
            interrupt_task(session, claim)
            return
        lose_task(
            session,
            claim,
            code=TASK_CRASHED,
            reason=f"Its process ended with code {process.exit_code}: {last_error(tail)}",
            max_attempts=self._settings.max_attempts,
            pause_s=self._settings.retry_backoff_s,
        )
