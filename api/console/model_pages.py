"""Pages of models: their list, their origin, the active model, and a comparison of two models."""

from uuid import UUID

import sqlalchemy as sa
from flask import Response, request
from sqlalchemy.orm import Session

from api.console import formatting
from api.console.comparison import common_sets, compare
from api.console.model_lineage import read_evaluations, read_lineages
from api.console.pages import console_blueprint, show
from api.console.training_choices import read_choices
from api.http.audit import unaudited
from api.http.auth import requires
from api.http.rows import find_row
from api.http.services import services
from shared.errors import InvalidRequest
from shared.models.gate_verdicts import read_verdicts
from shared.tables import GateDecision, Model
from shared.vocabulary.headlines import read_headlines, read_references
from shared.vocabulary.states import ModelState, Scope

blueprint = console_blueprint("model_pages")

#: Number of decisions on the page, the newest first.
_DECISIONS = 20


@blueprint.get("/console/models")
@requires(Scope.READ)
@unaudited("It shows models and their figures.")
def models() -> Response:
    """Show every model, the newest first, and the gate's latest decisions."""
    with services().database.begin() as session:
        rows = session.scalars(sa.select(Model).order_by(Model.id.desc())).all()
        active = next((row for row in rows if row.state == ModelState.ACTIVE), None)
        retired = sa.select(Model).where(Model.state == ModelState.RETIRED).order_by(Model.retired_at.desc())
        decisions = session.scalars(sa.select(GateDecision).order_by(GateDecision.id.desc()).limit(_DECISIONS)).all()
        return show(
            "models.html",
            lineages=read_lineages(session, rows),
            active=active,
            previous=session.scalar(retired.limit(1)),
            decisions=decisions,
            names={row.id: row.name for row in rows},
            verdicts=read_verdicts(session, [row.id for row in rows]),
            choices=read_choices(session),
            headlines=lambda metrics: [*read_headlines(metrics), *read_references(metrics)],
            formatting=formatting,
        )


@blueprint.get("/console/models/compare")
@requires(Scope.READ)
@unaudited("It shows models and their figures.")
def comparison() -> Response:
    """Show two models side by side; `on` is the set, by default the newest that both were evaluated on."""
    with services().database.begin() as session:
        first, second = _named(session, "first"), _named(session, "second")
        sets = common_sets(read_evaluations(session, [first.id]), read_evaluations(session, [second.id]))
        chosen = request.args.get("on") or next(iter(sets), None)
        pair = sets.get(chosen) if chosen else None
        headlines, classes = compare(*pair) if pair else ([], [])
        return show(
            "compare.html",
            first=first,
            second=second,
            sets=sets,
            chosen=chosen,
            pair=pair,
            headlines=headlines,
            classes=classes,
            decision=_decision(session, first, second),
            models=session.execute(sa.select(Model.id, Model.name).order_by(Model.id.desc())).all(),
            formatting=formatting,
        )


def _named(session: Session, parameter: str) -> Model:
    try:
        model_id = UUID(request.args.get(parameter, ""))
    except ValueError as exc:
        raise InvalidRequest(f"`{parameter}` must be the id of a model.") from exc
    return find_row(session, Model, model_id)


def _decision(session: Session, first: Model, second: Model) -> GateDecision | None:
    """Return the latest gate decision about these two models, with the first one as the active model."""
    about = sa.select(GateDecision).where(
        GateDecision.baseline_model_id == first.id,
        GateDecision.candidate_model_id == second.id,
        GateDecision.figures.is_not(None),
    )
    return session.scalar(about.order_by(GateDecision.id.desc()).limit(1))
