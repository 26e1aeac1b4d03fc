"""Models: the registry, promotion, and the reference to a model that results carry."""

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from shared.bounded import Bounded
from shared.models.verdict import MOST_REASON, GateVerdict
from shared.vocabulary.states import ModelState


class ModelPath(Bounded):
    """Which model."""

    model_id: UUID


class ModelRequest(Bounded):
    """A model to register."""

    card: dict[str, Any] = Field(
        description="The model's card, as an exported model has it; `weights_sha256` names weights that are stored."
    )


class PromotionRequest(Bounded):
    """Why a model is promoted; may be left out, body and all, unless the gate refused the model."""

    model_config = ConfigDict(str_strip_whitespace=True)

    reason: str | None = Field(
        None, min_length=1, max_length=MOST_REASON, description="Kept in the audit: no patient's data."
    )


class ModelAnswer(BaseModel):
    """A detector."""

    id: UUID
    name: str
    digest: str
    state: ModelState
    created_at: datetime
    promoted_at: datetime | None
    retired_at: datetime | None
    #: What it says about itself: classes, canvas, thresholds, metrics, warnings.
    card: dict[str, Any]
    #: The gate's last decision about it; of this project, but for the answer to a promotion.
    gate: GateVerdict | None


class ModelsAnswer(BaseModel):
    """Every model, the newest first."""

    models: list[ModelAnswer]


class ModelReference(BaseModel):
    """The model that found something."""

    id: UUID
    name: str
    digest: str
    #: Now: `active` is the one whose results are authoritative.
    state: ModelState
    #: In words, as its card says; empty where that is not known.
    trained_on: str
    #: What a reader must know before believing its findings, in sentences, as its card says.
    warnings: list[str]
