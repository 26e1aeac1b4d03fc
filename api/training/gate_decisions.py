"""Decisions of the gate: whether a candidate should replace the active model, and why."""

from flask import Response

from api.contract.paging import PageQuery
from api.contract.schedules import GateDecisionAnswer, GateDecisionPath, GateDecisionsAnswer, GateRequest
from api.http.audit import unaudited
from api.http.auth import identity, require_to_promote, requires
from api.http.errors import may_raise
from api.http.idempotency import idempotent
from api.http.resource import as_json, resource
from api.http.rows import find_row, read_page
from api.http.services import services
from shared.erasure import DatasetErased
from shared.errors import NotFound, NotReady
from shared.tables import GateDecision
from shared.training.gates import ask_gate
from shared.vocabulary.states import Scope

blueprint = resource("gate_decisions")


@blueprint.post("/v1/gate-decisions", responses={202: GateDecisionAnswer})
@requires(Scope.TRAIN)
@idempotent
@may_raise(NotFound, NotReady, DatasetErased)
def ask(body: GateRequest) -> Response:
    """Ask the gate about a model.

    Queues a comparison of the model with the active one; a trainer performs it. With `promote`, the key needs `system`
    too.
    """
    require_to_promote(body.config)
    with services().database.begin() as session:
        decision = ask_gate(
            session, project_id=identity().project_id, candidate_model_id=body.model_id, config=body.config
        )
        return as_json(GateDecisionAnswer.model_validate(decision), 202)


@blueprint.get("/v1/gate-decisions", responses={200: GateDecisionsAnswer})
@requires(Scope.READ)
@unaudited("It shows figures of models.")
def show_all(query: PageQuery) -> Response:
    """List gate decisions.

    The newest first.
    """
    with services().database.begin() as session:
        rows, following = read_page(session, GateDecision, query)
        decisions = [GateDecisionAnswer.model_validate(row) for row in rows]
        return as_json(GateDecisionsAnswer(gate_decisions=decisions, next=following))


@blueprint.get("/v1/gate-decisions/<uuid:decision_id>", responses={200: GateDecisionAnswer})
@requires(Scope.READ)
@unaudited("It shows figures of models.")
def show(path: GateDecisionPath) -> Response:
    """Show a gate decision.

    Shows its progress and, when it is made, its figures and an explanation.
    """
    with services().database.begin() as session:
        return as_json(GateDecisionAnswer.model_validate(find_row(session, GateDecision, path.decision_id)))
