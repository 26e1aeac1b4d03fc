"""Pages of trainings: their list, the start of a training, and its progress."""

from collections.abc import Sequence
from uuid import UUID

import sqlalchemy as sa
from flask import Response, request
from pydantic import ValidationError
from sqlalchemy.orm import Session

from api.console import formatting
from api.console.pages import console_blueprint, show
from api.console.training_choices import read_choices
from api.contract.paging import PageQuery
from api.contract.training import EvaluationAnswer
from api.http.audit import unaudited
from api.http.auth import requires
from api.http.rows import find_row, read_page
from api.http.services import services
from api.training.answers import describe_training
from shared.errors import InvalidRequest
from shared.tables import Dataset, Evaluation, GateDecision, Model, Schedule, TrainingRun
from shared.vocabulary.states import Scope

blueprint = console_blueprint("training_pages")


@blueprint.get("/console/training")
@requires(Scope.READ)
@unaudited("It shows settings and figures of trainings.")
def trainings() -> Response:
    """Show the trainings, the newest first; `before` begins a later page."""
    try:
        query = PageQuery.model_validate(request.args.to_dict())
    except ValidationError as exc:
        raise InvalidRequest from exc
    with services().database.begin() as session:
        runs, following = read_page(session, TrainingRun, query)
        return show(
            "trainings.html",
            runs=[describe_training(run) for run in runs],
            following=following,
            datasets=_names(session, Dataset, [run.dataset_id for run in runs]),
            schedules=_names(session, Schedule, [run.schedule_id for run in runs]),
            choices=read_choices(session),
            formatting=formatting,
        )


@blueprint.get("/console/training/<uuid:training_id>")
@requires(Scope.READ)
@unaudited("It shows settings and figures of trainings.")
def training(training_id: UUID) -> Response:
    """Show one training, and what came of it."""
    with services().database.begin() as session:
        run = find_row(session, TrainingRun, training_id)
        evaluations = sa.select(Evaluation).where(Evaluation.model_id == run.model_id).order_by(Evaluation.id.desc())
        decisions = sa.select(GateDecision).where(GateDecision.training_run_id == run.id).order_by(GateDecision.id)
        asked = [EvaluationAnswer.model_validate(row) for row in session.scalars(evaluations)]
        return show(
            "training.html",
            run=describe_training(run),
            dataset=session.get_one(Dataset, run.dataset_id),
            schedule=None if run.schedule_id is None else session.get(Schedule, run.schedule_id),
            parent=None if run.initial_model_id is None else session.get(Model, run.initial_model_id),
            model=None if run.model_id is None else session.get(Model, run.model_id),
            evaluations=asked,
            pending=[str(each.id) for each in asked if not each.state.is_final],
            decisions=session.scalars(decisions).all(),
            log_tail=run.log_tail,
            formatting=formatting,
        )


def _names(session: Session, row: type[Dataset] | type[Schedule], ids: Sequence[UUID | None]) -> dict[UUID, str]:
    wanted = {id_ for id_ in ids if id_ is not None}
    found = session.execute(sa.select(row.id, row.name).where(row.id.in_(wanted)))
    return dict(found.all())
