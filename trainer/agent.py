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
from shared.training.groups import Membership, take_place
from shared.training.tasks import KINDS, TaskClaim, claim_task, expire_tasks, interrupt_task, lose_task
from shared.vocabulary.states import WorkerKind
from trainer.ending import Ending, Kind
from trainer.follower import Follower
from trainer.group import Group
from trainer.launch import command_of
from trainer.leader import Leader
from trainer.probe_port import ProbePort
from trainer.task_process import TaskProcess
from trainer.watch import Watch

log = structlog.get_logger()

SEEN_EVERY_S = 20.0

TASK_CRASHED = plain_code("trainer_process_lost", "The process of the task died, in every attempt.", Place.TASK)
MACHINES_MISSING = plain_code(
    "machines_missing", "Machines of the group did not come to the rendezvous. `carina doctor` tries it.", Place.TASK
)


def run_trainer(settings: Settings) -> None:
    """Take tasks until SIGTERM; on a machine that does not lead its group, join the trainings of the leader."""
    configure_logging(settings.log_level)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    database = Database.from_settings(settings, "trainer")
    readiness = Readiness(storing(database, ObjectStore(settings)))
    group = Group.from_settings(settings)
    place = None
    if group is not None:
        place = Membership(
            group.name, group.node_rank, make_owner(WorkerKind.TRAIN, settings.slot), group.address, ProbePort().port
        )
    try:
        if group is not None and place is not None and not group.is_leader:
            follower = Follower(settings, database, group, place)
            with StateFile("trainer") as state, ReadinessMonitor(readiness, state):
                follower.run(stop)
        else:
            agent = Agent(settings, database, stop, group, place)
            with StateFile("trainer", is_stuck=agent.is_stuck) as state, ReadinessMonitor(readiness, state):
                agent.run()
    finally:
        database.close()


class Agent:
    """One trainer: at most one task at a time."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        stop: threading.Event,
        group: Group | None = None,
        place: Membership | None = None,
    ) -> None:
        self.owner = place.owner if place else make_owner(WorkerKind.TRAIN, settings.slot)
        self._settings = settings
        self._database = database
        self._store = ObjectStore(settings)
        self._stop = stop
        self._leader = Leader(settings, database, group, place) if group and place else None
        self._seen_at = -SEEN_EVERY_S
        self._looked_at = time.monotonic()

    def is_stuck(self) -> bool:
        """Return whether it has neither looked for a task nor watched its current one for too long."""
        return time.monotonic() - self._looked_at > max(
            self._settings.trainer_stuck_s, 3 * self._settings.trainer_poll_s
        )

    def run(self) -> None:
        """Look for tasks and do them until the stop flag is set."""
        if leader := self._leader:
            self._database.persist(lambda session: take_place(session, leader.place), within_s=self._settings.lease_s)
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
            group, kinds = None, set(KINDS)
            if self._leader:
                group = self._leader.group.name
                kinds -= set() if self._leader.can_begin(session) else {"training"}
            claim = claim_task(session, self.owner, lease_s=self._settings.lease_s, group=group, kinds=kinds)
        if claim is None:
            return False
        self._do(claim)
        return True

    def _mark_seen(self, session: sa.orm.Session) -> None:
        self._look()
        if self._leader:
            self._leader.mark(session)
        if time.monotonic() - self._seen_at >= SEEN_EVERY_S:
            mark_seen(session, self.owner, WorkerKind.TRAIN)
            self._seen_at = time.monotonic()

    def _do(self, claim: TaskClaim) -> None:
        """Start the task's processes, renew its lease while they run, and update its row when they have ended."""
        log.info("task_started", task=claim.kind, task_id=str(claim.task_id), attempt=claim.attempt)
        leader = self._leader if claim.kind == "training" else None
        if leader is None:
            process = TaskProcess(command_of(claim, self._settings))
        elif leader.gather(claim, self._stop, self._look):
            group = leader.group
            command = command_of(claim, self._settings, group, leader.machine_count)
            process = TaskProcess(command, group.environ(), group.address)
        else:
            return
        watch = Watch(self._settings, self._database, claim, process, leader)
        try:
            watch.run(self._stop, self._mark_seen)
        finally:
            code = process.end()
        if watch.is_ours:
            cause = watch.ending() if leader is None else leader.find_cause(claim, watch.ending())
            self._database.persist(
                lambda session: self._release(session, claim, cause), within_s=self._settings.lease_s
            )
        self._database.persist(
            lambda session: self._store_log(session, claim, process, leader), within_s=self._settings.lease_s
        )
        self._clean_up(claim)
        log.info("task_ended", task=claim.kind, task_id=str(claim.task_id), exit_code=code, ours=watch.is_ours)

    def _look(self) -> None:
        self._looked_at = time.monotonic()

    def _clean_up(self, claim: TaskClaim) -> None:
        """Delete the checkpoints that a training no longer needs after its end."""
        if claim.kind != "training":
            return
        keys = list(self._store.keys(f"{CHECKPOINTS}{claim.task_id}/"))
        with self._database.begin() as session:
            found = unneeded(session, keys, days=self._settings.checkpoint_days)
        for key in found:
            self._store.delete(key)

    def _store_log(
        self, session: sa.orm.Session, claim: TaskClaim, process: TaskProcess, leader: Leader | None
    ) -> None:
        """Store the end of the log."""
        tail = process.log_tail() if leader is None else leader.merge(session, claim, process.log_tail())
        own_attempt = sa.and_(claim.table.id == claim.task_id, claim.table.attempt == claim.attempt)
        session.execute(sa.update(claim.table).where(own_attempt).values(log_tail=tail))

    def _release(self, session: sa.orm.Session, claim: TaskClaim, cause: Ending) -> None:
        """Return the task to the queue, because its processes have not finished it."""
        if cause.kind is Kind.STOPPED:
            interrupt_task(session, claim)
            return
        pause_s = self._settings.retry_backoff_s
        if cause.kind is Kind.ABSENT:  # waiting for machines costs no attempt
            interrupt_task(session, claim, code=MACHINES_MISSING, reason=cause.reason, pause_s=pause_s)
            return
        max_attempts = self._settings.max_attempts
        lose_task(session, claim, code=TASK_CRASHED, reason=cause.reason, max_attempts=max_attempts, pause_s=pause_s)
