"""Schedules: when to train again on the latest dataset of a name, and what a beat does once that is due.

All times are the database's, so that clocks of beats do not matter.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from pydantic import ValidationError
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from shared.cron import next_time, times
from shared.errors import NotFound, NotReady, RequestError
from shared.queue.states import Overlap, TaskState
from shared.tables import Dataset, Schedule, TrainingRun
from shared.training import GateConfig, TrainingConfig
from shared.trainings import check_config, check_gate, hold_out, latest_dataset, start_training

#: A beat that comes later than this after a time says so.
PUNCTUAL = timedelta(minutes=1)

_SOUGHT = sa.select(Schedule).with_for_update()


class ScheduleExists(RequestError):
    """There is a schedule of this name."""

    code = "schedule_exists"
    status = 409


@dataclass(frozen=True)
class Outcome:
    """What became of a schedule's time."""

    schedule_id: UUID
    #: None where the time was left out.
    run: TrainingRun | None
    #: In one sentence.
    said: str


def create_schedule(
    session: Session,
    *,
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
    """Add a schedule; a dataset of the name need not be there yet.

    Raises `InvalidCron`, `InvalidTimeZone`, `ScheduleExists`, and what `check_config` and `check_gate` raise.
    """
    check_config(session, config)
    check_gate(session, gate)
    due = next_time(cron, time_zone, _now(session))
    added = (
        insert(Schedule)
        .values(
            name=name,
            cron=cron,
            time_zone=time_zone,
            dataset_name=dataset_name,
            config=config.model_dump(mode="json"),
            gate=None if gate is None else gate.model_dump(mode="json"),
            overlap=overlap,
            skip_unchanged=skip_unchanged,
            enabled=enabled,
            next_at=due if enabled else None,
        )
        .on_conflict_do_nothing(index_elements=["name"])
        .returning(Schedule)
    )
    schedule = session.scalar(added)
    if schedule is None:
        raise ScheduleExists(f"There is a schedule {name!r} already.")
    return schedule


def find_schedule(session: Session, named: str | UUID) -> Schedule:
    """Return the schedule of a name or id, held against beats till the transaction ends; raise `NotFound`."""
    which = Schedule.id == named if isinstance(named, UUID) else Schedule.name == named
    schedule = session.scalar(_SOUGHT.where(which))
    if schedule is None:
        raise NotFound(f"There is no schedule {named}.")
    return schedule


def update_schedule(session: Session, schedule: Schedule, **changes: Any) -> None:
    """Change what `create_schedule` set, but for the name; raises what that raises.

    A new cron expression or zone, like being enabled again, counts from now: no time before is made up for.
    """
    if "config" in changes:
        check_config(session, changes["config"])
        changes["config"] = changes["config"].model_dump(mode="json")
    if changes.get("gate") is not None:
        check_gate(session, changes["gate"])
        changes["gate"] = changes["gate"].model_dump(mode="json")
    before = (schedule.cron, schedule.time_zone, schedule.enabled)
    for column, value in changes.items():
        setattr(schedule, column, value)
    if (schedule.cron, schedule.time_zone, schedule.enabled) != before:
        due = next_time(schedule.cron, schedule.time_zone, _now(session))
        schedule.next_at = due if schedule.enabled else None


def delete_schedule(session: Session, schedule: Schedule) -> None:
    """Remove a schedule; its runs stay, and go on."""
    session.delete(schedule)


def run_now(session: Session, schedule: Schedule) -> TrainingRun:
    """Start a schedule's run by hand, whatever its rules say; raises `NotReady` and what `start_training` raises."""
    now = _now(session)
    dataset = latest_dataset(session, schedule.dataset_name)
    if dataset is None:
        raise NotReady(_no_dataset(schedule))
    run = _start(session, schedule, dataset, now)
    schedule.last_at, schedule.last_outcome = now, f"Started by hand: run {run.id}."
    return run


def claim_due(session: Session, now: datetime | None = None) -> list[Outcome]:
    """Start the runs of all schedules that are due, or say why not; any number of beats may do so at once.

    Times that nobody was there for become one run, of the last of them. A schedule that another beat is at is left to
    it, and `(schedule_id, due_at)` is unique besides.
    """
    now = now or _now(session)
    due = sa.select(Schedule).where(Schedule.enabled, Schedule.next_at <= now).order_by(Schedule.next_at)
    return [_take(session, schedule, now) for schedule in session.scalars(due.with_for_update(skip_locked=True)).all()]


def _take(session: Session, schedule: Schedule, now: datetime) -> Outcome:
    assert schedule.next_at is not None, "the query chose it by this"
    passed, upcoming = [schedule.next_at], None
    for upcoming in times(schedule.cron, schedule.time_zone, schedule.next_at):
        if upcoming > now:
            break
        passed.append(upcoming)
    run, said = None, ""
    try:
        run, said = _start_or_skip(session, schedule, passed[-1])
    except RequestError as error:
        said = f"Not started: {error.detail}"
    except ValidationError:
        said = "Not started: the schedule's config or gate is not valid under this version; set it anew."
    said += _lateness(passed, now)
    schedule.last_at, schedule.next_at, schedule.last_outcome = passed[-1], upcoming, said
    return Outcome(schedule.id, run, said)


def _start_or_skip(session: Session, schedule: Schedule, due_at: datetime) -> tuple[TrainingRun | None, str]:
    dataset = latest_dataset(session, schedule.dataset_name)
    if dataset is None:
        return None, f"Skipped: {_no_dataset(schedule)}"
    last = _last_run(session, schedule)
    is_open = last is not None and not TaskState(last.state).is_final
    if last is not None and is_open and schedule.overlap == Overlap.SKIP:
        return None, f"Skipped: run {last.id} is not at its end."
    if last is not None and schedule.skip_unchanged and _is_same(session, schedule, dataset, last):
        return None, f"Skipped: nothing changed since run {last.id}."
    run = _start(session, schedule, dataset, due_at)
    return run, f"Started run {run.id}" + (f", which waits for run {last.id}." if last and is_open else ".")


def _last_run(session: Session, schedule: Schedule) -> TrainingRun | None:
    """Return the newest run that has succeeded or still may."""
    hopeless = (TaskState.FAILED, TaskState.CANCELLED)
    runs = sa.select(TrainingRun).where(TrainingRun.schedule_id == schedule.id, TrainingRun.state.not_in(hopeless))
    return session.scalar(runs.order_by(TrainingRun.id.desc()).limit(1))


def _is_same(session: Session, schedule: Schedule, dataset: Dataset, last: TrainingRun) -> bool:
    config, gate = _read(schedule)
    digest = session.scalar(sa.select(Dataset.digest).where(Dataset.id == last.dataset_id))
    return (digest, last.config_digest, last.gate) == (
        dataset.digest,
        hold_out(config, gate).digest,
        None if gate is None else gate.model_dump(mode="json"),
    )


def _start(session: Session, schedule: Schedule, dataset: Dataset, due_at: datetime) -> TrainingRun:
    config, gate = _read(schedule)
    return start_training(
        session,
        dataset=dataset,
        config=config,
        gate=gate,
        name=f"{schedule.name} {due_at:%Y-%m-%d %H:%M}",
        schedule_id=schedule.id,
        due_at=due_at,
    )


def _read(schedule: Schedule) -> tuple[TrainingConfig, GateConfig | None]:
    gate = None if schedule.gate is None else GateConfig.model_validate(schedule.gate)
    return TrainingConfig.model_validate(schedule.config), gate


def _no_dataset(schedule: Schedule) -> str:
    return f"there is no dataset {schedule.dataset_name!r} whose import has succeeded."


def _lateness(passed: list[datetime], now: datetime) -> str:
    late = now - passed[-1]
    said = ""
    if late > PUNCTUAL:
        said += f" This was {_spell(late)} late."
    if len(passed) > 1:
        earlier = len(passed) - 1
        said += f" {earlier} earlier time{'s were' if earlier > 1 else ' was'} missed, the first {passed[0]:%Y-%m-%d %H:%M} UTC."
    return said


def _spell(duration: timedelta) -> str:
    """Say how long, in the two largest units that are not 0."""
    minutes = int(duration.total_seconds() // 60)
    parts = [(minutes // 1440, "d"), (minutes // 60 % 24, "h"), (minutes % 60, "min")]
    return " ".join([f"{count} {unit}" for count, unit in parts if count][:2])


def _now(session: Session) -> datetime:
    return session.scalars(sa.select(sa.func.now())).one()
