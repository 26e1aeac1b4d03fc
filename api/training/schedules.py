"""Schedules of repeated trainings."""

from typing import Any

import sqlalchemy as sa
from flask import Response
from sqlalchemy.orm import Session

from api.contract.schedules import ScheduleAnswer, ScheduleChange, SchedulePath, ScheduleRequest, SchedulesAnswer
from api.contract.training import TrainingAnswer
from api.http.audit import unaudited
from api.http.auth import identity, require_to_promote, requires
from api.http.errors import may_raise
from api.http.idempotency import idempotent
from api.http.resource import as_json, resource
from api.http.services import services
from api.training.answers import describe_training
from shared.erasure import DatasetErased
from shared.errors import NotFound, NotReady
from shared.tables import Schedule
from shared.training.cron import InvalidCron, InvalidTimeZone
from shared.training.pretrained import WeightsUnavailable
from shared.training.recipes import change_config, config_of
from shared.training.schedules import (
    ScheduleExists,
    create_schedule,
    delete_schedule,
    find_schedule,
    read_schedule,
    run_now,
    update_schedule,
)
from shared.training.trainings import AlreadyStarted, require_weights
from shared.vocabulary.states import Scope

blueprint = resource("schedules")


@blueprint.get("/v1/schedules", responses={200: SchedulesAnswer})
@requires(Scope.READ)
@unaudited("It shows settings of trainings.")
def show_all() -> Response:
    """List schedules.

    Sorted by name.
    """
    with services().database.begin() as session:
        rows = session.scalars(sa.select(Schedule).order_by(Schedule.name))
        return as_json(SchedulesAnswer(schedules=[ScheduleAnswer.model_validate(row) for row in rows]))


@blueprint.post("/v1/schedules", responses={201: ScheduleAnswer})
@requires(Scope.TRAIN)
@idempotent
@may_raise(ScheduleExists, InvalidCron, InvalidTimeZone, WeightsUnavailable, NotFound)
def create(body: ScheduleRequest) -> Response:
    """Create a schedule.

    Trains repeatedly by a cron expression. A dataset with the given name need not exist yet.
    """
    values = {name: getattr(body, name) for name in ScheduleRequest.model_fields.keys() - {"recipe", "config"}}
    require_to_promote(body.gate)
    config = config_of(body.recipe, body.config)
    require_weights(services().store, config)
    with services().database.begin() as session:
        return _answer(create_schedule(session, project_id=identity().project_id, config=config, **values), 201)


@blueprint.get("/v1/schedules/<uuid:schedule_id>", responses={200: ScheduleAnswer})
@requires(Scope.READ)
@unaudited("It shows settings of trainings.")
def show(path: SchedulePath) -> Response:
    """Show a schedule.

    Shows when it is due next and the outcome of its last run.
    """
    with services().database.begin() as session:
        return _answer(find_schedule(session, identity().project_id, path.schedule_id))


@blueprint.patch("/v1/schedules/<uuid:schedule_id>", responses={200: ScheduleAnswer})
@requires(Scope.TRAIN)
@may_raise(InvalidCron, InvalidTimeZone, WeightsUnavailable)
def change(path: SchedulePath, body: ScheduleChange) -> Response:
    """Change a schedule.

    Fields that are left out stay as they are. A new cron expression or time zone applies from now on, and so does
    enabling the schedule again.
    """
    with services().database.begin() as session:
        schedule = find_schedule(session, identity().project_id, path.schedule_id, to_change=True)
        changes = _changes(schedule, body)
        if changes.keys() & {"config", "dataset_name", "gate"}:  # these decide which model is promoted
            require_to_promote(changes["gate"] if "gate" in changes else read_schedule(schedule)[1])
        update_schedule(session, schedule, **changes)
        return _show_changed(session, schedule)


@blueprint.delete("/v1/schedules/<uuid:schedule_id>", responses={204: None})
@requires(Scope.TRAIN)
def delete(path: SchedulePath) -> Response:
    """Delete a schedule.

    Its trainings are kept.
    """
    with services().database.begin() as session:
        delete_schedule(session, find_schedule(session, identity().project_id, path.schedule_id, to_change=True))
    return Response(status=204)


@blueprint.post("/v1/schedules/<uuid:schedule_id>/run", responses={202: TrainingAnswer})
@requires(Scope.TRAIN)
@idempotent
@may_raise(NotReady, AlreadyStarted, DatasetErased)
def run(path: SchedulePath) -> Response:
    """Run a schedule now.

    Starts a training at once, whatever the schedule's rules are.
    """
    with services().database.begin() as session:
        return as_json(
            describe_training(
                run_now(session, find_schedule(session, identity().project_id, path.schedule_id, to_change=True))
            ),
            202,
        )


def _changes(schedule: Schedule, body: ScheduleChange) -> dict[str, Any]:
    changes = {name: getattr(body, name) for name in body.model_fields_set - {"recipe", "config"}}
    if body.recipe is not None:
        changes["config"] = config_of(body.recipe, body.config or {})
    elif body.config is not None:
        changes["config"] = change_config(read_schedule(schedule)[0], body.config)
    if "config" in changes:
        require_weights(services().store, changes["config"])
    return changes


def _show_changed(session: Session, schedule: Schedule) -> Response:
    session.flush()
    session.refresh(schedule)
    return _answer(schedule)


def _answer(schedule: Schedule, status: int = 200) -> Response:
    return as_json(ScheduleAnswer.model_validate(schedule), status)
