"""Schedules with real processes: beats that start late."""

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
from shared.tables import Schedule, TrainingRun
from shared.training.due import claim_due
from shared.training.schedules import create_schedule, database_now
from shared.vocabulary.states import TaskState
from tests.integration.forked import command
from tests.integration.rows import add_dataset, home
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
