"""Schedules: periodic trainings on the latest dataset with a name. `shared.training.due` starts the due runs."""

from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from shared.errors import NotFound, NotReady, RequestError
from shared.suggestions import pick
from shared.tables import Dataset, Schedule, TrainingRun
from shared.training import datasets
from shared.training.config import GateConfig, TrainingConfig
from shared.training.cron import next_time
from shared.training.trainings import check_schedule, start_training
from shared.vocabulary.states import Overlap


class ScheduleExists(RequestError):
    """A schedule with this name exists already."""

    code = "schedule_exists"
    status = 409
    parameter = "name"


def create_schedule(
    session: Session,
    *,
    project_id: UUID,
    name: str,
    cron: str,
    time_zone: str,
    dataset_name: str,
    config: TrainingConfig,
    gate: GateConfig | None = None,
    overlap: Overlap = Overlap.SKIP,
    skip_unchanged: bool = True,
    enabled: bool = True,
) -> Schedule:
    """Add a schedule to a project. A dataset with its name may be imported later.

    Raises `InvalidCron`, `InvalidTimeZone`, `ScheduleExists`, and the errors of `check_schedule`.
    """
    check_schedule(session, project_id, config, gate, dataset_name)
    due = next_time(cron, time_zone, database_now(session))
    added = (
        insert(Schedule)
        .values(
            project_id=project_id,
            name=name,
            cron=cron,
            time_zone=time_zone,
            dataset_name=dataset_name,
            config=config.model_dump(mode="json"),
            gate=sa.null() if gate is None else gate.model_dump(mode="json"),
            overlap=overlap,
            skip_unchanged=skip_unchanged,
            enabled=enabled,
            next_at=due if enabled else None,
        )
        .on_conflict_do_nothing(index_elements=["project_id", "name"])
        .returning(Schedule)
    )
    schedule = session.scalar(added)
    if schedule is None:
        raise ScheduleExists(f"A schedule {name!r} exists already.")
    return schedule


def find_schedule(session: Session, project_id: UUID, named: str | UUID, *, to_change: bool = False) -> Schedule:
    """Return a project's schedule by name, id or first digits of the id; raise `NotFound` and `AmbiguousName`.

    With `to_change` the schedule is locked, so that no beat starts a run of it at the same time.
    """
    rows = sa.select(Schedule.id, Schedule.name).where(Schedule.project_id == project_id)
    called = {row.id: row.name for row in session.execute(rows)}
    sought = sa.select(Schedule).where(Schedule.id == pick("schedule", str(named), called))
    schedule = session.scalar(sought.with_for_update() if to_change else sought)
    if schedule is None:  # deleted in the meantime
        raise NotFound(f"There is no schedule {named}.")
    return schedule


def update_schedule(session: Session, schedule: Schedule, **changes: Any) -> None:
    """Change columns that `create_schedule` sets, except the name; raises the same errors.

    After a change of the cron expression, the time zone or `enabled`, earlier times are ignored.
    """
    if changes.keys() & {"config", "gate", "dataset_name"}:
        config, gate = changes.get("config"), changes.get("gate")
        if config is None or "gate" not in changes:
            before_config, before_gate = read_schedule(schedule)
            config, gate = config or before_config, gate if "gate" in changes else before_gate
        check_schedule(session, schedule.project_id, config, gate, changes.get("dataset_name", schedule.dataset_name))
    if "config" in changes:
        changes["config"] = changes["config"].model_dump(mode="json")
    if "gate" in changes:
        changes["gate"] = changes["gate"].model_dump(mode="json") if changes["gate"] else sa.null()
    before = (schedule.cron, schedule.time_zone, schedule.enabled)
    for column, value in changes.items():
        setattr(schedule, column, value)
    if (schedule.cron, schedule.time_zone, schedule.enabled) != before:
        due = next_time(schedule.cron, schedule.time_zone, database_now(session))
        schedule.next_at = due if schedule.enabled else None


def delete_schedule(session: Session, schedule: Schedule) -> None:
    """Delete a schedule. Its runs are kept and continue."""
    session.delete(schedule)


def run_now(session: Session, schedule: Schedule) -> TrainingRun:
    """Start a run now, ignoring `overlap` and `skip_unchanged`; raise `NotReady` and the errors of `start_training`."""
    now = database_now(session)
    dataset = datasets.latest(session, schedule.project_id, schedule.dataset_name)
    if dataset is None:
        raise NotReady(no_dataset(schedule))
    run = start_run(session, schedule, dataset, now)
    schedule.last_at, schedule.last_outcome = now, f"Started by hand: run {run.id}."
    return run


def start_run(session: Session, schedule: Schedule, dataset: Dataset, due_at: datetime) -> TrainingRun:
    """Start a run of a schedule for the time `due_at`; raises the errors of `start_training`."""
    config, gate = read_schedule(schedule)
    return start_training(
        session,
        dataset=dataset,
        config=config,
        gate=gate,
        name=f"{schedule.name} {due_at:%Y-%m-%d %H:%M}",
        schedule_id=schedule.id,
        due_at=due_at,
    )


def read_schedule(schedule: Schedule) -> tuple[TrainingConfig, GateConfig | None]:
    """Return a schedule's config and gate; raise pydantic's `ValidationError` if this version cannot read them."""
    gate = None if schedule.gate is None else GateConfig.model_validate(schedule.gate)
    return TrainingConfig.model_validate(schedule.config), gate


def no_dataset(schedule: Schedule) -> str:
    """Return the message for a schedule without a dataset."""
    return f"there is no dataset {schedule.dataset_name!r} whose import has succeeded."


def database_now(session: Session) -> datetime:
    """Return the start time of this transaction, by the database's clock."""
    return session.scalars(sa.select(sa.func.now())).one()
