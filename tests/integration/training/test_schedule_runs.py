"""Schedules with real processes: a beat that starts late, and a training that lasts longer than an interval."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared.database import Database
from shared.object_store import ObjectStore
from shared.settings import Settings
from shared.tables import Schedule, TrainingRun
from shared.training.due import claim_due
from shared.training.schedules import create_schedule, database_now
from shared.training.tasks import cancel_task
from shared.vocabulary.states import Overlap, TaskState
from tests.integration.forked import command
from tests.integration.rows import add_dataset, home
from tests.integration.trainers import trainer, wait_for_task
from tests.tiny_dataset import store_dataset
from tests.tiny_images import tiny_config
from tests.waiting import DEADLINE_S, wait_for


def create(database: Database, **changes: Any) -> None:
    """Make an hourly schedule."""
    values = {"cron": "0 * * * *", "time_zone": "UTC", "dataset_name": "phantoms", "config": tiny_config()} | changes
    with database.begin() as session:
        create_schedule(session, project_id=home(session), name="hourly", **values)


def make_due(session: Session, hours: int) -> datetime:
    """Set the schedule's next time to a full hour, so many hours from the last one; return it."""
    hour = database_now(session).replace(minute=0, second=0, microsecond=0)
    session.execute(sa.update(Schedule).values(next_at=hour + timedelta(hours=hours)))
    return hour + timedelta(hours=hours)


def outcome(database: Database) -> str | None:
    with database.begin() as session:
        return session.scalar(sa.select(Schedule.last_outcome))


def runs(database: Database) -> list[TrainingRun]:
    with database.begin() as session:
        found = list(session.scalars(sa.select(TrainingRun).order_by(TrainingRun.id)))
        session.expunge_all()
        return found


def tick(database: Database, hours: int) -> str:
    """Do what a beat does with a schedule that is due, at a full hour; a time has one run, so each call has its own."""
    with database.begin() as session:
        (found,) = claim_due(session, make_due(session, hours))
    return found.said


@contextmanager
def beat(environ: dict[str, str], log: Path) -> Iterator[None]:
    process = command(["beat"], os.environ | environ | {"CARINA_SWEEP_INTERVAL_S": "0.2"}, log)
    try:
        yield
    finally:
        process.terminate()
        assert process.wait(DEADLINE_S) == 0, log.read_text()


@pytest.mark.usefixtures("store")
def test_a_beat_that_starts_late_runs_changed_data_once_and_says_so(
    environ: dict[str, str], database: Database, tmp_path: Path
) -> None:
    with database.begin() as session:
        add_dataset(session, "phantoms", content="first")
    create(database)
    tick(database, -24)
    with database.begin() as session:
        session.execute(sa.update(TrainingRun).values(state=TaskState.SUCCEEDED))
    (first,) = runs(database)

    with database.begin() as session:
        make_due(session, -3)
    with beat(environ, tmp_path / "unchanged.log"):
        wait_for(lambda: (outcome(database) or "").startswith(f"Skipped: nothing changed since run {first.id}."))
    assert len(runs(database)) == 1

    with database.begin() as session:
        add_dataset(session, "phantoms", content="second")
        make_due(session, -3)
    with beat(environ, tmp_path / "first.log"), beat(environ, tmp_path / "second.log"):
        wait_for(lambda: (outcome(database) or "").startswith("Started"))
    _, late = runs(database)
    said = outcome(database)
    assert said is not None
    assert said.startswith(f"Started run {late.id}.")
    assert " earlier times were missed, from " in said
    assert late.state == TaskState.QUEUED


def test_while_a_training_lasts_times_are_skipped_or_queued_behind_it(
    environ: dict[str, str], settings: Settings, database: Database, store: ObjectStore
) -> None:
    store_dataset(database, store, count=8)
    create(database, skip_unchanged=False, config=tiny_config(epochs=1000))

    def set_overlap(overlap: Overlap) -> None:
        with database.begin() as session:
            session.execute(sa.update(Schedule).values(overlap=overlap))

    def cancel(run: TrainingRun) -> None:
        with database.begin() as session:
            cancel_task(session, TrainingRun, run.id)

    tick(database, 0)
    (first,) = runs(database)
    with trainer(environ) as one, trainer(environ) as other:
        before = wait_for_task(database, TrainingRun, first.id, lambda row: bool(row.progress), settings).progress
        set_overlap(Overlap.SKIP)
        assert tick(database, 1) == f"Skipped: run {first.id} is not finished."
        set_overlap(Overlap.QUEUE)
        said = tick(database, 2)
        _, second = runs(database)
        assert said == f"Started run {second.id}, which waits for run {first.id}."
        wait_for_task(database, TrainingRun, first.id, lambda row: row.progress != before, settings)
        assert [run.attempt for run in runs(database)] == [1, 0], "the idle trainer waits"
        cancel(first)
        wait_for_task(database, TrainingRun, second.id, lambda row: row.attempt == 1, settings)
        set_overlap(Overlap.SKIP)
        assert tick(database, 3) == f"Skipped: run {second.id} is not finished."
        cancel(second)
        said = tick(database, 4)
        *_, third = runs(database)
        assert said == f"Started run {third.id}."
        assert one.process.poll() is other.process.poll() is None
