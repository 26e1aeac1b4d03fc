"""Watches the processes of one attempt of a task, and renews its lease meanwhile."""

import threading
import time
from collections.abc import Callable

import structlog
from sqlalchemy.orm import Session

from shared.database import Database
from shared.errors import DatabaseUnavailable
from shared.settings import Settings
from shared.tables import Task, TrainingRun
from shared.training.tasks import TaskClaim, renew_task
from shared.vocabulary.states import TaskState
from trainer.ending import Ending, Kind, count_memory_kills, read_ending
from trainer.leader import REPORT_S, Leader
from trainer.task_process import EXIT_S, STOP_S, TaskProcess

log = structlog.get_logger()

_RENEW_S = 1.0


class Watch:
    """The watch over one attempt. It ends with the processes, or when they must be killed."""

    def __init__(
        self, settings: Settings, database: Database, claim: TaskClaim, process: TaskProcess, leader: Leader | None
    ) -> None:
        self._settings = settings
        self._database = database
        self._claim = claim
        self._process = process
        self._leader = leader
        self._memory_kills = count_memory_kills()
        #: Whether this trainer still owns the task.
        self.is_ours = True
        self._has_succeeded = self._was_cancelled = self._hangs = self._follows = False
        self._progress: dict[str, object] | None = None
        self._renewed_at = self._moved_at = time.monotonic()
        self._others_ended_at: float | None = None

    def run(self, stop: threading.Event, mark: Callable[[Session], None]) -> None:
        """Renew the lease until the processes end or hang; `mark` records that the trainer is alive."""
        while self._process.is_running(_RENEW_S):
            if stop.is_set() and not self._process.was_asked_to_stop:
                self._process.ask_to_stop()
            try:
                with self._database.begin() as session:
                    mark(session)
                    is_over = self._renew(session)
            except DatabaseUnavailable:
                self.is_ours = time.monotonic() - self._renewed_at < self._settings.lease_s
                is_over = not self.is_ours
            if is_over:
                if self._was_cancelled and not self._process.was_asked_to_stop:
                    self._process.ask_to_stop()  # it deletes the objects that no row names
                if self._was_cancelled or self._has_succeeded:
                    self._process.is_running(EXIT_S)
                return

    def ending(self) -> Ending:
        """Return why the processes here ended."""
        if self._hangs:
            silence = f"no output and no progress for {self._settings.trainer_stuck_s:g} s"
            return Ending(Kind.HUNG, f"Its processes hung: {silence}.")
        if self._follows:
            return Ending(Kind.PEER, "Its processes were ended, because those of another machine had ended.")
        if self._process.was_asked_to_stop or self._process.exit_code == 0:
            return Ending(Kind.STOPPED, "It was asked to stop.")
        ran_out = count_memory_kills() > self._memory_kills
        return read_ending(self._process.log_tail(), self._process.exit_code, memory_ran_out=ran_out)

    def _renew(self, session: Session) -> bool:
        """Renew the lease; return whether the processes must be killed."""
        tail = self._process.new_log_tail()
        if self._leader:
            tail = self._leader.new_logs(session, self._claim, self._process.log_tail())
        self.is_ours = renew_task(session, self._claim, lease_s=self._settings.lease_s, log_tail=tail)
        row = session.get_one(self._claim.table, self._claim.task_id)
        if not self.is_ours:
            self._has_succeeded = row.state == TaskState.SUCCEEDED
            self._was_cancelled = row.state == TaskState.CANCELLED
            return True
        self._renewed_at = time.monotonic()
        if self._leader and isinstance(row, TrainingRun):
            return self._group_ended(self._leader, session, row) or self._is_hanging(tail, row)
        return self._is_hanging(tail, row)

    def _is_hanging(self, tail: str | None, row: Task) -> bool:
        """Return whether there was no sign of progress for too long."""
        before, self._progress = self._progress, row.progress
        if tail is not None or self._progress != before:
            self._moved_at = self._renewed_at
        self._hangs = self._renewed_at - self._moved_at > self._settings.trainer_stuck_s
        if self._hangs:
            log.error("task_stuck", task=self._claim.kind, task_id=str(self._claim.task_id))
        return self._hangs

    def _group_ended(self, leader: Leader, session: Session, run: TrainingRun) -> bool:
        """Return whether the processes of another machine have ended, and those here have not noticed it in time."""
        ending = leader.watch(session, self._claim, run.checkpoint_steps)
        if leader.should_regroup and not self._process.was_asked_to_stop:
            log.info("machine_returned", group=leader.group.name, task_id=str(run.id))
            self._process.ask_to_stop()
        if ending is None:
            return False
        self._others_ended_at = self._others_ended_at or self._renewed_at
        # After a stop, ranks here may still write the checkpoint, and torchrun would wait for its peers for minutes.
        limit_s = STOP_S if ending.kind is Kind.STOPPED else REPORT_S
        is_idle = ending.kind is Kind.STOPPED and not self._process.has_children()
        self._follows = is_idle or self._renewed_at - self._others_ended_at > limit_s
        return self._follows
