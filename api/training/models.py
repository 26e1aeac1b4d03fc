"""Models: which detectors there are, and which one is active. All projects share them, so changes need `system`."""

import sqlalchemy as sa
from flask import Response
from sqlalchemy.orm import Session

from api.contract.models import ModelAnswer, ModelPath, ModelsAnswer, PromotionRequest
from api.http.audit import note, unaudited
from api.http.auth import requires
from api.http.json_body import body_is_optional
from api.http.resource import as_json, resource
from api.http.services import services
from api.training.answers import describe_model
from shared.models import registry
from shared.models.gate_verdicts import read_verdicts
from shared.models.promotion import audited, promote_by_hand
from shared.models.verdict import GateVerdict
from shared.tables import Model
from shared.vocabulary.states import Scope

blueprint = resource("models")


@blueprint.get("/v1/models", responses={200: ModelsAnswer})
@requires(Scope.READ)
@unaudited("It shows models.")
def show_all() -> Response:
    """Show every model, the newest first."""
    with services().database.begin() as session:
        rows = session.scalars(sa.select(Model).order_by(Model.id.desc())).all()
        verdicts = read_verdicts(session, [row.id for row in rows])
        return as_json(ModelsAnswer(models=[describe_model(row, verdicts.get(row.id)) for row in rows]))


@blueprint.post("/v1/models/<uuid:model_id>/promote", responses={200: ModelAnswer})
@requires(Scope.SYSTEM)
@body_is_optional
def promote(path: ModelPath, body: PromotionRequest) -> Response:
    """Make a model the active one; workers change over between two batches. Show the gate's last decision about it.

    Where the gate refused the model a `reason` is needed, which the audit keeps.
    """
    with services().database.begin() as session:
        model, verdict = promote_by_hand(session, path.model_id, body.reason)
        note(**audited(verdict, body.reason))
        return _show_changed(session, model, verdict)


@blueprint.post("/v1/models/rollback", responses={200: ModelAnswer})
@requires(Scope.SYSTEM)
def roll_back() -> Response:
    """Return to the model that was active before."""
    with services().database.begin() as session:
        model = registry.roll_back(session)
        return _show_changed(session, model, read_verdicts(session, [model.id]).get(model.id))


def _show_changed(session: Session, model: Model, verdict: GateVerdict | None) -> Response:
    session.flush()
    session.refresh(model)
    return as_json(describe_model(model, verdict))
