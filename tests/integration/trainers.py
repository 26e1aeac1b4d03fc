"""Trainers as processes of their own, to be stopped and killed."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar
from uuid import UUID

import psutil

from shared.database import Database
from shared.settings import Settings
from shared.tables import Task
from shared.training.tasks import expire_tasks
from tests.integration.forked import trainer_process
from tests.waiting import DEADLINE_S, wait_until_gone

T = TypeVar("T", bound=Task)


class Trainer:
    """One `carina trainer` with its log."""

    def __init__(self, environ: dict[str, str], *, processes: int = 1, **more: str) -> None:
        settings = {
            "CARINA_DEVICE": "cpu",
            "CARINA_TORCH_THREADS": "1",
            "CARINA_TRAINER_PROCESSES": str(processes),
            "CARINA_TRAINER_POLL_S": "0.2",
            "CARINA_RETRY_BACKOFF_S": "0",
            "OMP_NUM_THREADS": "1",
            **{f"CARINA_{name.upper()}": value for name, value in more.items()},
        }
        self.process = trainer_process(os.environ | environ | settings)

    def launcher(self) -> psutil.Process:
        """The task's first process: torchrun, for a training."""
        return psutil.Process(self.process.pid).children()[0]

    def rank(self) -> psutil.Process:
        """One of the processes that do the work."""
        return self.launcher().children()[-1]

    def kill(self) -> None:
        """End the trainer and all its processes at once, as if its machine had lost its power."""
        family = psutil.Process(self.process.pid).children(recursive=True)
        for process in (psutil.Process(self.process.pid), *family):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait(DEADLINE_S)
        wait_until_gone(family)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and wait for the end."""
        self.process.send_signal(number)
        return self.process.wait(DEADLINE_S)


@contextmanager
def trainer(environ: dict[str, str], *, processes: int = 1, **more: str) -> Iterator[Trainer]:
    """A trainer that ends with the test, its children too; `more` are further settings."""
    running = Trainer(environ, processes=processes, **more)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.kill()


def wait_for_task(
    database: Database, table: type[T], task_id: UUID, condition: Callable[[T], bool], settings: Settings
) -> T:
    """Wait until a task's row fulfils a condition, sweeping meanwhile as beat does; return the detached row."""
    deadline = time.monotonic() + 2 * DEADLINE_S  # a training is many steps
    while True:
        with database.begin() as session:
            expire_tasks(session, max_attempts=settings.max_attempts)
            row = session.get_one(table, task_id)
            session.expunge(row)
        if condition(row):
            return row
        assert time.monotonic() < deadline, f"{row.state} {row.progress} {row.code} {row.reason}\n{row.log_tail}"
        time.sleep(0.1)
