"""Starts the runs of due schedules. Several beats can do this concurrently."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import sqlalchemy as sa
from pydantic import ValidationError
from sqlalchemy.orm import Session

from shared.errors import RequestError
from shared.tables import Dataset, Schedule, TrainingRun
from shared.training import datasets
from shared.training.cron import times
from shared.training.schedules import database_now, no_dataset, read_schedule, start_run
from shared.training.trainings import hold_out
from shared.vocabulary.states import Overlap, TaskState

#: A run that starts later than this after its due time gets a note.
PUNCTUAL = timedelta(minutes=1)


@dataclass(frozen=True)
class Outcome:
    """The outcome of a schedule's time."""

    schedule_id: UUID
    #: None if the time was skipped.
    run_id: UUID | None
    #: One or two sentences, which are stored in the schedule's row.
    said: str


def claim_due(session: Session, now: datetime | None = None) -> list[Outcome]:
    """Start a run of each due schedule, or record why not; `now` is the database's time by default.

    Several missed times become one run, for the last of them. Schedules locked by another beat are skipped, and
    `(schedule_id, due_at)` is unique.
    """
    now = now or database_now(session)
    due = sa.select(Schedule).where(Schedule.enabled, Schedule.next_at <= now).order_by(Schedule.next_at)
    return [_take(session, schedule, now) for schedule in session.scalars(due.with_for_update(skip_locked=True)).all()]


def _take(session: Session, schedule: Schedule, now: datetime) -> Outcome:
    assert schedule.next_at is not None, "the query chose it by this"
    passed, next_at, run_id = [schedule.next_at], None, None
    try:
        for moment in times(schedule.cron, schedule.time_zone, schedule.next_at):
            if moment > now:
                next_at = moment
                break
            passed.append(moment)
        run_id, said = _start_or_skip(session, schedule, passed[-1])
    except RequestError as error:
        said = f"Not started: {error.detail}"
    except ValidationError:
        said = "Not started: this version of Carina cannot read the schedule's config or gate. Set them again."
    said += _tell_lateness(passed, now)
    schedule.last_at, schedule.next_at, schedule.last_outcome = passed[-1], next_at, said
    return Outcome(schedule.id, run_id, said)


def _start_or_skip(session: Session, schedule: Schedule, due_at: datetime) -> tuple[UUID | None, str]:
    dataset = datasets.latest(session, schedule.project_id, schedule.dataset_name)
    if dataset is None:
        return None, f"Skipped: {no_dataset(schedule)}"
    last = _last_run(session, schedule)
    underway = last is not None and not TaskState(last.state).is_final
    if last is not None and underway and schedule.overlap == Overlap.SKIP:
        return None, f"Skipped: run {last.id} is not finished."
    if last is not None and schedule.skip_unchanged and _is_same(session, schedule, dataset, last):
        return None, f"Skipped: nothing changed since run {last.id}."
    run = start_run(session, schedule, dataset, due_at)
    return run.id, f"Started run {run.id}" + (f", which waits for run {last.id}." if last and underway else ".")


def _last_run(session: Session, schedule: Schedule) -> TrainingRun | None:
    """Return the newest run that has succeeded or is still open."""
    hopeless = (TaskState.FAILED, TaskState.CANCELLED)
    runs = sa.select(TrainingRun).where(TrainingRun.schedule_id == schedule.id, TrainingRun.state.not_in(hopeless))
    return session.scalar(runs.order_by(TrainingRun.due_at.desc()).limit(1))


def _is_same(session: Session, schedule: Schedule, dataset: Dataset, last: TrainingRun) -> bool:
    config, gate = read_schedule(schedule)
    digest = session.scalar(sa.select(Dataset.digest).where(Dataset.id == last.dataset_id))
    return (digest, last.config_digest, last.gate) == (
        dataset.digest,
        hold_out(config, gate).digest,
        None if gate is None else gate.model_dump(mode="json"),
    )


def _tell_lateness(passed: list[datetime], now: datetime) -> str:
    late = now - passed[-1]
    said = ""
    if late > PUNCTUAL:
        said += f" This was {_spell(late)} late."
    if len(passed) > 1:
        missed = "1 earlier time was" if len(passed) == 2 else f"{len(passed) - 1} earlier times were"
        said += f" {missed} missed, from {passed[0]:%Y-%m-%d %H:%M} UTC on."
    return said


def _spell(duration: timedelta) -> str:
    """Return a duration in its two largest units that are not 0."""
    minutes = int(duration.total_seconds() // 60)
    parts = [(minutes // 1440, "d"), (minutes // 60 % 24, "h"), (minutes % 60, "min")]
    return " ".join([f"{count} {unit}" for count, unit in parts if count][:2])
