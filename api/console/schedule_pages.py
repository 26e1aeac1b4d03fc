"""The page of schedules: their times, the outcomes of their last times, and changes to them."""

from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from flask import Response
from sqlalchemy.orm import Session

from api.console import formatting
from api.console.pages import as_data, console_blueprint, show
from api.console.training_choices import read_choices
from api.contract.schedules import ScheduleAnswer, SchedulesAnswer
from api.http.audit import unaudited
from api.http.auth import requires
from api.http.services import services
from shared.tables import Schedule, TrainingRun
from shared.vocabulary.states import Scope, TaskState

blueprint = console_blueprint("schedule_pages")


@dataclass(frozen=True)
class Shown:
    """A schedule with its last run."""

    schedule: Schedule
    run: TrainingRun | None

    @property
    def next_at(self) -> str:
        """Return its next time, in its time zone."""
        return _local(self.schedule.next_at, self.schedule.time_zone)

    @property
    def last_at(self) -> str:
        """Return its last time, in its time zone."""
        return _local(self.schedule.last_at, self.schedule.time_zone)


@blueprint.get("/console/schedules")
@requires(Scope.READ)
@unaudited("It shows settings of trainings.")
def schedules() -> Response:
    """Show every schedule, by name."""
    with services().database.begin() as session:
        rows = session.scalars(sa.select(Schedule).order_by(Schedule.name)).all()
        answer = SchedulesAnswer(schedules=[ScheduleAnswer.model_validate(row) for row in rows])
        return show(
            "schedules.html",
            schedules=[Shown(row, _last_run(session, row)) for row in rows],
            schedules_json=as_data(answer.model_dump_json()),
            choices=read_choices(session),
            final=[state for state in TaskState if state.is_final],
            formatting=formatting,
        )


def _last_run(session: Session, schedule: Schedule) -> TrainingRun | None:
    runs = sa.select(TrainingRun).where(TrainingRun.schedule_id == schedule.id)
    return session.scalar(runs.order_by(TrainingRun.id.desc()).limit(1))


def _local(moment: datetime | None, zone: str) -> str:
    return "–" if moment is None else f"{moment.astimezone(ZoneInfo(zone)):%a %Y-%m-%d %H:%M}"
