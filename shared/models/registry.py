"""The registry of models: all detectors, and which one is active."""

from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared.database.lookup import find_meant
from shared.detector.card import ModelCard
from shared.errors import RequestError
from shared.object_store import ObjectStore, weights_key
from shared.suggestions import no_such
from shared.tables import Model
from shared.vocabulary.states import ModelState


class NothingToRollBackTo(RequestError):
    """No model was active before this one."""

    code = "nothing_to_roll_back_to"
    status = 409


def register(session: Session, store: ObjectStore, card: ModelCard, weights: bytes) -> Model:
    """Store a model's weights, then its row with `add_model`."""
    known = renew_warnings(session, card)
    if known is not None:
        return known
    store.put(weights_key(card.weights_sha256), weights)
    return add_model(session, card)


def add_model(session: Session, card: ModelCard) -> Model:
    """Add the row of a model whose weights are stored. If it exists, only its warnings are updated."""
    known = renew_warnings(session, card)
    if known is not None:
        return known
    model = Model(
        name=card.name, digest=card.digest, card=card.model_dump(mode="json"), weights_sha256=card.weights_sha256
    )
    session.add(model)
    session.flush()
    return model


def renew_warnings(session: Session, card: ModelCard) -> Model | None:
    """Return the registered model of a card, or None. If the card has warnings, they replace those of the model."""
    known = session.scalar(sa.select(Model).where(Model.digest == card.digest))
    if known is not None and card.warnings:
        known.card = {**known.card, "warnings": list(card.warnings)}
    return known


def require(session: Session, model_id: UUID, *, parameter: str | None = None) -> Model:
    """Return a model; raise `NotFound`, which may suggest a similar id."""
    model = session.get(Model, model_id)
    if model is None:
        raise no_such("model", str(model_id), find_meant(session, Model, model_id.hex), parameter=parameter)
    return model


def class_names(session: Session) -> set[str]:
    """Return the names of the classes of all models."""
    cards = session.scalars(sa.select(Model.card["categories"]))
    return {category["name"] for categories in cards for category in categories}


def active(session: Session) -> Model | None:
    """Return the active model, if there is one."""
    return session.scalar(sa.select(Model).where(Model.state == ModelState.ACTIVE))


def active_id(session: Session) -> UUID | None:
    """Return the id of the active model, if there is one."""
    return session.scalar(sa.select(Model.id).where(Model.state == ModelState.ACTIVE))


def has_abnormality_head(model: Model) -> bool:
    """Return whether a model estimates the probability that an image shows any finding."""
    return model.card.get("abnormality_exponent") is not None


def promote(session: Session, model_id: UUID) -> Model:
    """Make a model the active one; raise `NotFound`. Workers load it between two batches."""
    hold(session)
    model = require(session, model_id)
    current = active(session)
    if current is not None and current.id != model.id:
        _step_down(session, current, ModelState.RETIRED)
    _activate(model)
    return model


def roll_back(session: Session) -> Model:
    """Make the previously active model active again; raise `NothingToRollBackTo` if there is none.

    The current model becomes a candidate, so that the next rollback selects an even earlier model.
    """
    hold(session)
    retired = sa.select(Model).where(Model.state == ModelState.RETIRED)
    previous = session.scalar(retired.order_by(Model.retired_at.desc()).limit(1))
    if previous is None:
        raise NothingToRollBackTo
    current = active(session)
    if current is not None:
        _step_down(session, current, ModelState.CANDIDATE)
    _activate(previous)
    return previous


def hold(session: Session) -> None:
    """Prevent other transactions from changing the active model until this one ends."""
    session.execute(sa.text("LOCK TABLE model IN SHARE ROW EXCLUSIVE MODE"))


def _step_down(session: Session, model: Model, state: ModelState) -> None:
    model.state, model.retired_at = state, sa.func.clock_timestamp()
    # Flush now, because the unique index allows only one active model, even inside the transaction.
    session.flush()


def _activate(model: Model) -> None:
    model.state, model.promoted_at = ModelState.ACTIVE, sa.func.clock_timestamp()
