"""Trainings: starting, showing and cancelling them."""

import sqlalchemy as sa
from flask import Response
from flask_openapi3.types import ResponseDict

from api.contract.paging import PageQuery
from api.contract.training import (
    EventsPath,
    PointsQuery,
    TrainingAnswer,
    TrainingPath,
    TrainingPointAnswer,
    TrainingPointsAnswer,
    TrainingRequest,
    TrainingsAnswer,
)
from api.http.audit import unaudited
from api.http.auth import identity, require_to_promote, requires
from api.http.errors import READS_OBJECTS, may_raise
from api.http.idempotency import idempotent
from api.http.resource import as_json, file_answer, resource
from api.http.rows import find_row, read_page
from api.http.services import services
from api.training.answers import describe_training
from shared.erasure import DatasetErased
from shared.errors import NotFound, NotReady
from shared.object_store import result_key
from shared.suggestions import AmbiguousName
from shared.tables import TrainingPoint, TrainingRun
from shared.training import datasets
from shared.training.pretrained import WeightsUnavailable, require_pretrained
from shared.training.recipes import config_of
from shared.training.tasks import TaskIsFinal, TaskNotResumable, cancel_task, resume_training
from shared.training.trainings import require_weights, start_training
from shared.vocabulary.states import Scope

blueprint = resource("trainings")

_EVENTS: ResponseDict = {"200": file_answer("application/octet-stream", "The event file.")}
_LOG: ResponseDict = {"200": file_answer("text/plain", "The lines.", "epoch 1 step 20 loss 0.61\n")}


@blueprint.post("/v1/trainings", responses={202: TrainingAnswer})
@requires(Scope.TRAIN)
@idempotent
@may_raise(NotFound, NotReady, AmbiguousName, WeightsUnavailable, DatasetErased)
def train(body: TrainingRequest) -> Response:
    """Start a training.

    Queues a training on a dataset; a trainer performs it. The result is a candidate model.
    """
    require_to_promote(body.gate)
    config = config_of(body.recipe, body.config)
    require_weights(services().store, config)
    with services().database.begin() as session:
        dataset = datasets.resolve(session, identity().project_id, body.dataset)
        run = start_training(session, dataset=dataset, config=config, gate=body.gate, name=body.name)
        require_pretrained(services().store, config)
        return as_json(describe_training(run), 202)


@blueprint.get("/v1/trainings", responses={200: TrainingsAnswer})
@requires(Scope.READ)
@unaudited("It shows settings and figures of trainings.")
def show_all(query: PageQuery) -> Response:
    """List trainings.

    The newest first.
    """
    with services().database.begin() as session:
        runs, following = read_page(session, TrainingRun, query)
        return as_json(TrainingsAnswer(trainings=[describe_training(run) for run in runs], next=following))


@blueprint.get("/v1/trainings/<uuid:training_id>", responses={200: TrainingAnswer})
@requires(Scope.READ)
@unaudited("It shows settings and figures of trainings.")
def show(path: TrainingPath) -> Response:
    """Show a training.

    Shows its progress and, when it has succeeded, its model.
    """
    with services().database.begin() as session:
        return as_json(describe_training(find_row(session, TrainingRun, path.training_id)))


@blueprint.get("/v1/trainings/<uuid:training_id>/points", responses={200: TrainingPointsAnswer})
@requires(Scope.READ)
@unaudited("It shows settings and figures of trainings.")
def show_points(path: TrainingPath, query: PointsQuery) -> Response:
    """Show a training's curves.

    About one point per second; a long training has fewer.
    """
    with services().database.begin() as session:
        attempt = find_row(session, TrainingRun, path.training_id).attempt
        mine = sa.select(TrainingPoint).where(
            TrainingPoint.training_run_id == path.training_id, TrainingPoint.step > query.after
        )
        rows = session.scalars(mine.order_by(TrainingPoint.step))
        points = [TrainingPointAnswer.model_validate(row) for row in rows]
    return as_json(TrainingPointsAnswer(attempt=attempt, points=points))


@blueprint.get(
    "/v1/trainings/<uuid:training_id>/log",
    responses=_LOG,
)
@requires(Scope.TRAIN)
@unaudited("It shows logs of trainings, and clients poll it.")
def show_log(path: TrainingPath) -> Response:
    """Show a training's log.

    The last lines that the processes of the training wrote.
    """
    with services().database.begin() as session:
        log = find_row(session, TrainingRun, path.training_id).log_tail
    return Response(log, content_type="text/plain; charset=utf-8")


@blueprint.get(
    "/v1/trainings/<uuid:training_id>/events/<int:attempt>",
    responses=_EVENTS,
)
@requires(Scope.TRAIN)
@may_raise(*READS_OBJECTS)
def show_events(path: EventsPath) -> Response:
    """Download a training's TensorBoard file.

    The event file of one attempt, up to its last checkpoint.
    """
    with services().database.begin() as session:
        sha256 = find_row(session, TrainingRun, path.training_id).events.get(str(path.attempt))
    if sha256 is None:
        raise NotFound(f"There is no event file of attempt {path.attempt}.")
    content = services().store.get(result_key(sha256, "tfevents"), sha256=sha256)
    return Response(content, content_type="application/octet-stream")


@blueprint.post("/v1/trainings/<uuid:training_id>/cancel", responses={200: TrainingAnswer})
@requires(Scope.TRAIN)
@may_raise(TaskIsFinal)
def cancel(path: TrainingPath) -> Response:
    """Cancel a training.

    A trainer that works on it stops within seconds.
    """
    with services().database.begin() as session:
        cancel_task(session, TrainingRun, path.training_id)
        return as_json(describe_training(find_row(session, TrainingRun, path.training_id)))


@blueprint.post("/v1/trainings/<uuid:training_id>/resume", responses={202: TrainingAnswer})
@requires(Scope.TRAIN)
@may_raise(TaskNotResumable, DatasetErased)
def resume(path: TrainingPath) -> Response:
    """Resume a training.

    Queues a failed or cancelled training again. It continues from its last checkpoint, before trainings that were
    requested later.
    """
    with services().database.begin() as session:
        find_row(session, TrainingRun, path.training_id)
        return as_json(describe_training(resume_training(session, path.training_id)), 202)
