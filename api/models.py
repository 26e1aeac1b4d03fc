"""Models: which detectors there are."""

import sqlalchemy as sa
from flask import Response

from api.auth import requires
from api.resource import as_json, resource
from api.schemas import ModelAnswer, ModelsAnswer
from api.services import services
from shared.queue.states import Scope
from shared.tables import Model

blueprint = resource("models")


@blueprint.get("/v1/models", responses={200: ModelsAnswer})
@requires(Scope.READ)
def show_all() -> Response:
    """Show every model, the newest first."""
    with services().database.begin() as session:
        models = session.scalars(sa.select(Model).order_by(Model.id.desc()))
        return as_json(ModelsAnswer(models=[ModelAnswer.of(model) for model in models]))
