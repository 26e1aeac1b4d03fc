"""The leader of a group: gathers the machines for an attempt, and watches them while it runs."""

import threading
import time
from collections.abc import Callable, Sequence

import structlog
from sqlalchemy.orm import Session

from shared.database import Database
from shared.errors import DatabaseUnavailable
from shared.leases import waiting_values
from shared.settings import Settings
from shared.tables import TrainerMachine, TrainingRun
from shared.training.groups import PRESENT_S, Membership, machines_of, mark_machine
from shared.training.tasks import TaskClaim, renew_task, update_task
from shared.vocabulary.states import TaskState
from trainer.ending import Ending, Kind
from trainer.group import Group
from trainer.probe_port import ProbePort

log = structlog.get_logger()

#: An elastic group that has its least number of machines waits this long for more.
FULL_GROUP_WAIT_S = 30.0
#: Seconds for other machines to report why their processes ended, and for processes here to notice it themselves.
REPORT_S = 10.0
_STEP_S = 1.0


class Leader:
    """The view of the leader on its group. It belongs to one trainer, which does one task at a time."""

    def __init__(self, settings: Settings, database: Database, group: Group, place: Membership) -> None:
        self.group = group
        self.place = place
        self._settings = settings
        self._database = database
        #: The addresses of the machines of the current attempt, by owner; the first one is this machine.
        self._machines: dict[str, str] = {}
        #: The finished steps at the last checkpoint when another machine came; None: no machine has come.
        self._steps_at_return: int | None = None
        #: Whether a checkpoint was stored since another machine came: the next attempt takes it in.
        self.should_regroup = False
        self._gave_up = False
        self._logs = ""
        self._port = int(group.rendezvous.rpartition(":")[2])
        self._probe: ProbePort | None = None
        self._is_port_taken = False

    @property
    def machine_count(self) -> int:
        """The number of machines of the current attempt."""
        return len(self._machines)

    def open_probe_port(self) -> None:
        """Answer at the rendezvous, for `carina doctor`."""
        if self._probe is None and not self._is_port_taken:
            self._probe = ProbePort.try_open(self._port)
            self._is_port_taken = self._probe is None

    def close_probe_port(self) -> None:
        """Leave the rendezvous to torchrun."""
        if self._probe is not None:
            self._probe.close()
        self._probe, self._is_port_taken = None, False

    def mark(self, session: Session) -> None:
        """Record that this machine is alive."""
        mark_machine(session, self.place)

    def can_begin(self, session: Session) -> bool:
        """Return whether to claim trainings: not after a time-out, until enough machines have come."""
        self.open_probe_port()
        self._gave_up = self._gave_up and len(self._alive(session, PRESENT_S)) < self.group.least
        return not self._gave_up

    def gather(self, claim: TaskClaim, stop: threading.Event, look: Callable[[], None]) -> bool:
        """Wait for the machines of an attempt, and name them in its row.

        Returns False if the training was given back, or is no longer this trainer's. Waiting takes no attempt.
        """
        began_at = heard_at = time.monotonic()
        self.open_probe_port()
        while True:
            look()
            waited_s = time.monotonic() - began_at
            try:
                with self._database.begin() as session:
                    done = self._gather_once(session, claim, waited_s, gives_up=stop.is_set())
                heard_at = time.monotonic()
            except DatabaseUnavailable:
                done = False if time.monotonic() - heard_at > self._settings.lease_s else None
            if done is not None:
                self.close_probe_port()
                return done
            stop.wait(_STEP_S)

    def _gather_once(self, session: Session, claim: TaskClaim, waited_s: float, *, gives_up: bool) -> bool | None:
        limit_s = self._settings.trainer_join_timeout_s
        is_here = mark_machine(session, self.place)
        alive = self._alive(session, PRESENT_S)[: self.group.most] if is_here else []
        wanted = self.group.most if waited_s < min(FULL_GROUP_WAIT_S, limit_s) else self.group.least
        run = session.get_one(TrainingRun, claim.task_id)
        progress = {name: value for name, value in run.progress.items() if name == "ap40"}
        if len(alive) >= wanted and not gives_up:
            self._machines = {machine.owner: machine.address for machine in alive}
            self._steps_at_return, self.should_regroup = None, False
            meeting = {"rendezvous": self.group.rendezvous, "machines": list(self._machines)}
            log.info("machines_gathered", group=self.group.name, machines=list(self._machines.values()))
            return update_task(session, claim, **meeting, progress=progress)
        progress["waiting"] = f"waiting for {wanted - len(alive)} of {wanted} machines of the group {self.group.name}"
        if gives_up or waited_s > limit_s:
            self._gave_up = not gives_up
            log.warning("machines_missing", group=self.group.name, present=len(alive), wanted=wanted)
            state = TaskState.INTERRUPTED if claim.attempt > 1 else TaskState.QUEUED
            # After a time-out any trainer may take it.
            group = self.group.name if gives_up and claim.attempt > 1 else None
            back = {"attempt": claim.attempt - 1, "progress": progress, "trainer_group": group}
            update_task(session, claim, **waiting_values(state), **back)
            return False
        held = renew_task(session, claim, lease_s=self._settings.lease_s)
        return None if held and update_task(session, claim, progress=progress) else False

    def watch(self, session: Session, claim: TaskClaim, steps: int | None) -> Ending | None:
        """Return why the processes of another machine have ended, if they have. `steps` are those of the checkpoint."""
        has_returned = self.machine_count < min(len(self._alive(session, PRESENT_S)), self.group.most)
        if has_returned and self._steps_at_return is None:
            self._steps_at_return = steps or 0
        self.should_regroup = has_returned and (steps or 0) > (self._steps_at_return or 0)
        endings = self._endings(session, claim, self._settings.lease_s)
        return min(endings, key=lambda ending: ending.kind, default=None)

    def find_cause(self, claim: TaskClaim, own: Ending) -> Ending:
        """Return why an attempt ended; waits for the other machines' reports if the ending here only follows theirs."""
        found = [own.at(self.group.address)]
        until = time.monotonic() + REPORT_S
        while own.kind >= Kind.ABSENT:
            over = time.monotonic() > until
            try:
                with self._database.begin() as session:
                    self.mark(session)
                    renew_task(session, claim, lease_s=self._settings.lease_s)
                    endings = self._endings(session, claim, REPORT_S / 2 if over else self._settings.lease_s)
            except DatabaseUnavailable:
                break
            if over or len(endings) == len(self._others) or any(each.kind < Kind.ABSENT for each in endings):
                found += endings
                break
            time.sleep(_STEP_S / 2)
        return min(found, key=lambda ending: ending.kind)

    def new_logs(self, session: Session, claim: TaskClaim, own: str) -> str | None:
        """Return the last lines of all machines, or None if there are no new ones."""
        before, self._logs = self._logs, self.merge(session, claim, own)
        return None if self._logs == before else self._logs

    def merge(self, session: Session, claim: TaskClaim, own: str) -> str:
        """Return the last lines of this machine and of the others, one machine after the other."""
        rows = machines_of(session, self.group.name)
        others = [row.log_tail for row in rows if row.owner in self._others and _is_of(row, claim)]
        return "\n".join(filter(None, [*others, own]))

    @property
    def _others(self) -> Sequence[str]:
        return list(self._machines)[1:]

    def _alive(self, session: Session, within_s: float) -> list[TrainerMachine]:
        return machines_of(session, self.group.name, seen_within_s=within_s)

    def _endings(self, session: Session, claim: TaskClaim, silent_s: float) -> list[Ending]:
        alive = {row.owner for row in self._alive(session, silent_s)}
        rows = {row.owner: row for row in machines_of(session, self.group.name)}
        endings = []
        for owner in self._others:
            address, row = self._machines[owner], rows.get(owner)
            if row is not None and row.ending is not None and _is_of(row, claim):
                endings.append(Ending(Kind(row.ending["kind"]), row.ending["reason"]).at(address))
            elif owner not in alive:
                endings.append(Ending(Kind.SILENT, f"The machine {address} stopped responding."))
        return endings


def _is_of(row: TrainerMachine, claim: TaskClaim) -> bool:
    return (row.training_run_id, row.attempt) == (claim.task_id, claim.attempt)
