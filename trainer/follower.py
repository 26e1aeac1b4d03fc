"""A machine that does not lead its group: it joins the trainings of the leader."""

import threading
import time
from contextlib import suppress
from dataclasses import asdict
from uuid import UUID

import structlog

from shared.database import Database
from shared.errors import DatabaseUnavailable
from shared.processes.loops import run_steps
from shared.settings import Settings
from shared.tables import TrainingRun
from shared.training.groups import Joined, Membership, find_training, leave_place, mark_machine, take_place
from shared.vocabulary.states import TaskState
from trainer.ending import Ending, Kind, count_memory_kills, read_ending
from trainer.group import Group
from trainer.launch import ranks_here, torchrun
from trainer.task_process import EXIT_S, TaskProcess

log = structlog.get_logger()

#: Seconds between two signs of life of a machine.
MARK_S = 1.0


class Follower:
    """Joins each attempt of a training that names this machine, and leaves when the attempt no longer runs."""

    def __init__(self, settings: Settings, database: Database, group: Group, place: Membership) -> None:
        self._settings = settings
        self._database = database
        self._group = group
        self._place = place
        self._stop = threading.Event()
        #: The last attempt that this machine took part in.
        self._done: tuple[UUID, int] | None = None

    def run(self, stop: threading.Event) -> None:
        """Join trainings until the stop flag is set."""
        self._stop = stop
        self._database.persist(lambda session: take_place(session, self._place), within_s=self._settings.lease_s)
        log.info("follower_started", group=self._group.name, node_rank=self._group.node_rank)
        run_steps("follower", self._step, stop, every_s=MARK_S)
        with suppress(DatabaseUnavailable), self._database.begin() as session:
            leave_place(session, self._place)

    def _step(self) -> None:
        with self._database.begin() as session:
            is_here = mark_machine(session, self._place)
            joined = find_training(session, self._group.name, self._place.owner)
        if not is_here:
            log.error("place_taken", group=self._group.name, node_rank=self._group.node_rank)
        if joined is None or (joined.run_id, joined.attempt) == self._done:
            return
        self._done = joined.run_id, joined.attempt
        log.info("training_joined", training_id=str(joined.run_id), attempt=joined.attempt)
        ending = self._take_part(joined)
        log.info("training_left", training_id=str(joined.run_id), attempt=joined.attempt, kind=ending.kind.name)

    def _take_part(self, joined: Joined) -> Ending:
        """Run the ranks of this machine; return why they ended."""
        task = ["trainer.process", "training", str(joined.run_id), joined.lease_owner, str(joined.attempt)]
        meeting, node = f"{joined.run_id}-{joined.attempt}", joined.machines.index(self._place.owner)
        command = torchrun(
            ranks_here(self._settings),
            meeting,
            task,
            group=self._group,
            node=node,
            machines=len(joined.machines),
            join_s=self._settings.trainer_join_timeout_s,
        )
        kills = count_memory_kills()
        row = {"training_run_id": joined.run_id, "attempt": joined.attempt}
        process = TaskProcess(command, self._group.environ(), self._group.address)
        try:
            self._watch(joined, process, row)
        finally:
            code = process.end()
        if process.was_asked_to_stop or code == 0:
            ending = Ending(Kind.STOPPED, "Its trainer was asked to stop.")
        else:
            ending = read_ending(process.log_tail(), code, memory_ran_out=count_memory_kills() > kills)
        last = {"log_tail": process.log_tail(), "ending": asdict(ending)}
        self._database.persist(
            lambda session: mark_machine(session, self._place, **row, **last), within_s=self._settings.lease_s
        )
        return ending

    def _watch(self, joined: Joined, process: TaskProcess, row: dict[str, object]) -> None:
        """Return when the ranks have ended, or when the attempt no longer runs."""
        heard_at = time.monotonic()
        while process.is_running(MARK_S):
            if self._stop.is_set() and not process.was_asked_to_stop:
                process.ask_to_stop()
            tail = process.new_log_tail()
            news = {} if tail is None else {"log_tail": tail}
            try:
                with self._database.begin() as session:
                    mark_machine(session, self._place, **row, **news, ending=None)
                    is_current = find_training(session, self._group.name, self._place.owner) == joined
                    state = session.get_one(TrainingRun, joined.run_id).state
            except DatabaseUnavailable:
                if time.monotonic() - heard_at > self._settings.lease_s:
                    return
                continue
            heard_at = time.monotonic()
            if not is_current:
                if state in (TaskState.SUCCEEDED, TaskState.CANCELLED):  # the leader asks its ranks to stop
                    process.is_running(EXIT_S)
                return
