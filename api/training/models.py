"""Models: listing, registering and promoting them. All projects share models, so changes need the scope `system`."""

import sqlalchemy as sa
from flask import Response
from pydantic import ValidationError
from sqlalchemy.orm import Session

from api.contract.models import ModelAnswer, ModelPath, ModelRequest, ModelsAnswer, PromotionRequest
from api.contract.weights import WEIGHTS
from api.http.audit import note, unaudited
from api.http.auth import requires
from api.http.body import takes
from api.http.errors import READS_OBJECTS, STORE_ERRORS, may_raise
from api.http.json_body import body_is_optional
from api.http.resource import as_json, resource
from api.http.services import services
from api.training.answers import describe_model
from shared.detector.card import ModelCard
from shared.errors import InvalidRequest, NotFound
from shared.models import registry
from shared.models.gate_verdicts import read_verdicts
from shared.models.promotion import PromotionRefused, audited, promote_by_hand
from shared.models.registry import NothingToRollBackTo
from shared.models.verdict import GateVerdict
from shared.object_store import weights_key
from shared.tables import Model
from shared.vocabulary.states import Scope

#: A card may hold figures of every class.
_MAX_CARD_BYTES = 1024**2

blueprint = resource("models")


@blueprint.get("/v1/models", responses={200: ModelsAnswer})
@requires(Scope.READ)
@unaudited("It shows models.")
def show_all() -> Response:
    """List models.

    The newest first, each with the gate's last decision.
    """
    with services().database.begin() as session:
        rows = session.scalars(sa.select(Model).order_by(Model.id.desc())).all()
        verdicts = read_verdicts(session, [row.id for row in rows])
        return as_json(ModelsAnswer(models=[describe_model(row, verdicts.get(row.id)) for row in rows]))


@blueprint.post("/v1/models", responses={201: ModelAnswer})
@requires(Scope.SYSTEM)
@takes(_MAX_CARD_BYTES)
@may_raise(NotFound, *STORE_ERRORS)
def register(body: ModelRequest) -> Response:
    """Register a model.

    Registers a candidate whose weights are stored with `PUT /v1/weights/{sha256}`. Registering the same model again
    returns the same one; warnings of the card replace earlier ones.
    """
    try:
        card = ModelCard.model_validate(body.card)
    except ValidationError as exc:
        raise InvalidRequest(parameter="card") from exc
    if not services().store.has(weights_key(card.weights_sha256)):
        raise NotFound(
            f"The object store has no weights {card.weights_sha256}. Send them first, with PUT /v1/weights/SHA256.",
            parameter="card.weights_sha256",
        )
    with services().database.begin() as session:
        model = registry.add_model(session, card)
        return _show_changed(session, model, read_verdicts(session, [model.id]).get(model.id), 201)


@blueprint.get("/v1/models/<uuid:model_id>/weights", responses={200: WEIGHTS})
@requires(Scope.SYSTEM)
@may_raise(*READS_OBJECTS)
def send_weights(path: ModelPath) -> Response:
    """Download a model's weights.

    A safetensors file. The model's `card` has what is needed to use it.
    """
    with services().database.begin() as session:
        sha256 = registry.require(session, path.model_id).weights_sha256
    return Response(
        services().store.stream(weights_key(sha256), sha256=sha256), content_type="application/octet-stream"
    )


@blueprint.post("/v1/models/<uuid:model_id>/promote", responses={200: ModelAnswer})
@requires(Scope.SYSTEM)
@body_is_optional
@may_raise(PromotionRefused)
def promote(path: ModelPath, body: PromotionRequest) -> Response:
    """Promote a model.

    Makes the model the active one for all projects. Workers change over between two batches. If the gate refused the
    model, a `reason` is needed; the audit keeps it.
    """
    with services().database.begin() as session:
        model, verdict = promote_by_hand(session, path.model_id, body.reason)
        note(**audited(verdict, body.reason))
        return _show_changed(session, model, verdict)


@blueprint.post("/v1/models/rollback", responses={200: ModelAnswer})
@requires(Scope.SYSTEM)
@may_raise(NothingToRollBackTo)
def roll_back() -> Response:
    """Return to the previously active model.

    Changes the active model for all projects.
    """
    with services().database.begin() as session:
        model = registry.roll_back(session)
        return _show_changed(session, model, read_verdicts(session, [model.id]).get(model.id))


def _show_changed(session: Session, model: Model, verdict: GateVerdict | None, status: int = 200) -> Response:
    session.flush()
    session.refresh(model)
    return as_json(describe_model(model, verdict), status)
