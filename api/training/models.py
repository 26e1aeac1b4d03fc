"""Models: which detectors there are, and which one is active. All projects share them, so changes need `system`."""

import sqlalchemy as sa
from flask import Response
from pydantic import ValidationError
from sqlalchemy.orm import Session

from api.contract.models import ModelAnswer, ModelPath, ModelRequest, ModelsAnswer, PromotionRequest
from api.contract.weights import WEIGHTS
from api.http.audit import note, unaudited
from api.http.auth import requires
from api.http.body import takes
from api.http.json_body import body_is_optional
from api.http.resource import as_json, resource
from api.http.services import services
from api.training.answers import describe_model
from shared.detector.card import ModelCard
from shared.errors import InvalidRequest, NotFound
from shared.models import registry
from shared.models.gate_verdicts import read_verdicts
from shared.models.promotion import audited, promote_by_hand
from shared.models.verdict import GateVerdict
from shared.object_store import weights_key
from shared.tables import Model
from shared.vocabulary.states import Scope

#: A card may hold figures of every class.
_MOST_CARD_BYTES = 1024**2

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


@blueprint.post("/v1/models", responses={201: ModelAnswer})
@requires(Scope.SYSTEM)
@takes(_MOST_CARD_BYTES)
def register(body: ModelRequest) -> Response:
    """Register a model whose weights are stored (`PUT /v1/weights/SHA256`) as a candidate.

    The same model again is the same one; warnings of the card, if it has any, replace those that it had.
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
def send_weights(path: ModelPath) -> Response:
    """Send a model's weights. The model's `card` says how to use them."""
    with services().database.begin() as session:
        sha256 = registry.require(session, path.model_id).weights_sha256
    return Response(
        services().store.stream(weights_key(sha256), sha256=sha256), content_type="application/octet-stream"
    )


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


def _show_changed(session: Session, model: Model, verdict: GateVerdict | None, status: int = 200) -> Response:
    session.flush()
    session.refresh(model)
    return as_json(describe_model(model, verdict), status)
