"""Models: which detectors there are, and which one is active. All projects share them, so changes need `system`."""

import sqlalchemy as sa
from flask import Response
from sqlalchemy.orm import Session

from api.audit import unaudited
from api.auth import requires
from api.resource import as_json, resource
from api.schemas import ModelAnswer, ModelPath, ModelsAnswer
from api.services import services
from shared import models
from shared.queue.states import Scope
from shared.tables import Model

blueprint = resource("models")


@blueprint.get("/v1/models", responses={200: ModelsAnswer})
@requires(Scope.READ)
@unaudited("It shows models.")
def show_all() -> Response:
    """Show every model, the newest first."""
    with services().database.begin() as session:
        rows = session.scalars(sa.select(Model).order_by(Model.id.desc()))
        return as_json(ModelsAnswer(models=[ModelAnswer.of(row) for row in rows]))


@blueprint.post("/v1/models/<uuid:model_id>/promote", responses={200: ModelAnswer})
@requires(Scope.SYSTEM)
def promote(path: ModelPath) -> Response:
    """Make a model the active one; workers change over between two batches."""
    with services().database.begin() as session:
        return _show_changed(session, models.promote(session, path.model_id))


@blueprint.post("/v1/models/rollback", responses={200: ModelAnswer})
@requires(Scope.SYSTEM)
def roll_back() -> Response:
    """Return to the model that was active before."""
    with services().database.begin() as session:
        return _show_changed(session, models.roll_back(session))


def _show_changed(session: Session, model: Model) -> Response:
    session.flush()
    session.refresh(model)
    return as_json(ModelAnswer.of(model))
