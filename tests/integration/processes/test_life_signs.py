"""Workers and trainers show that they live, and go on after errors that nobody expected."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import sqlalchemy as sa

from shared.database import Database
from shared.leases import Lease
from shared.settings import Settings
from shared.tables import Dataset, Worker
from shared.vocabulary.states import WorkerKind
from tests.integration.rows import home
from tests.waiting import wait_for
from trainer.agent import Agent
from workers.heartbeat import Heartbeat
from workers.process import WorkerProcess


def run(database: Database, statement: str) -> None:
    with database.begin() as session:
        session.execute(sa.text(statement))


@contextmanager
def without(database: Database, table: str) -> Iterator[None]:
    """Each look at the table raises an error that is no outage."""
    run(database, f"ALTER TABLE {table} RENAME TO away")
    try:
        yield
    finally:
        run(database, f"ALTER TABLE away RENAME TO {table}")


def age(database: Database) -> float | None:
    """How long ago the one worker was seen, in seconds; None where there is none."""
    since = sa.extract("epoch", sa.func.clock_timestamp() - Worker.seen_at)
    with database.begin() as session:
        found = session.scalar(sa.select(since).where(Worker.stopped_at.is_(None)))
        return None if found is None else float(found)


@pytest.fixture
def heartbeat(database: Database) -> Iterator[Heartbeat]:
    """Beats ten times a second."""
    beating = Heartbeat(database, WorkerKind.PREPARE, lease_s=0.3, stuck_after_s=60)
    beating.start("cpu")
    yield beating
    beating.stop()


def test_a_heart_beats_on_after_any_error(
    database: Database, heartbeat: Heartbeat, capsys: pytest.CaptureFixture[str]
) -> None:
    said = ""

    def has_failed() -> bool:
        nonlocal said
        said += "".join(capsys.readouterr())
        return said.count("loop_failed") >= 2

    with without(database, "worker"):
        wait_for(has_failed)
    run(database, "UPDATE worker SET seen_at = now() - interval '1 hour'")
    wait_for(lambda: (seen := age(database)) is not None and seen < 60)


def test_a_worker_whose_row_is_gone_is_seen_again(database: Database, heartbeat: Heartbeat) -> None:
    """As after a backup was restored, or where its process had counted as stopped."""
    run(database, "DELETE FROM worker")
    wait_for(lambda: age(database) is not None)
    run(database, "UPDATE worker SET stopped_at = now()")
    wait_for(lambda: age(database) is not None)
    with database.begin() as session:
        assert session.execute(sa.select(Worker.id, Worker.device)).one() == (heartbeat.owner, "cpu")


def test_a_trainer_takes_tasks_after_any_error(
    settings: Settings, database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    stop, said = threading.Event(), ""
    agent = Agent(settings.model_copy(update={"trainer_poll_s": 0.1}), database, stop)
    thread = threading.Thread(target=agent.run)

    def has_failed() -> bool:
        nonlocal said
        said += "".join(capsys.readouterr())
        return said.count("loop_failed") >= 2

    with without(database, "gate_decision"):
        thread.start()
        wait_for(has_failed)
    with database.begin() as session:
        session.add(task := Dataset(project_id=home(session), name="none", source={}))
        session.flush()
        task_id = task.id

    def was_taken() -> bool:
        with database.begin() as session:
            return session.get_one(Dataset, task_id).attempt > 0

    wait_for(was_taken)
    stop.set()
    thread.join()
    assert age(database) is None


def test_a_worker_that_waits_for_a_server_is_not_stuck(settings: Settings) -> None:
    """Half a lease for the database and all tries of the object store, however short a decode may be."""
    process = WorkerProcess(settings.model_copy(update={"lease_s": 600.0}), WorkerKind.PREPARE, stuck_after_s=60.0)
    heartbeat = process.heartbeat
    heartbeat.hold([Lease(owner=heartbeat.owner, attempt=1)])
    waits_s = 300.0 + 90.0
    for silent_s, is_stuck in ((waits_s, False), (waits_s + 61, True)):
        heartbeat._progressed_at = time.monotonic() - silent_s
        assert heartbeat.is_stuck() is is_stuck
    process.database.close()
    process.hints.close()
