"""Models: the registry, promotion, and the reference to a model in results."""

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from shared.bounded import Bounded
from shared.models.verdict import MAX_REASON_CHARACTERS, GateVerdict
from shared.vocabulary.states import ModelState


class ModelPath(Bounded):
    """Identifies a model."""

    model_id: UUID


class ModelRequest(Bounded):
    """A model to register."""

    card: dict[str, Any] = Field(
        description="The model card, as in an exported model. `weights_sha256` names stored weights."
    )


class PromotionRequest(Bounded):
    """The reason of a promotion. The body can be left out, unless the gate refused the model."""

    model_config = ConfigDict(str_strip_whitespace=True)

    reason: str | None = Field(
        None, min_length=1, max_length=MAX_REASON_CHARACTERS, description="Stored in the audit; no data of patients."
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
    #: The model's card: classes, canvas, thresholds, metrics, warnings.
    card: dict[str, Any]
    #: The last decision of the gate about it in this project; in the answer to a promotion, in any project.
    gate: GateVerdict | None


class ModelsAnswer(BaseModel):
    """All models, the newest first."""

    models: list[ModelAnswer]


class ModelReference(BaseModel):
    """The model that made a result."""

    id: UUID
    name: str
    digest: str
    #: The current state; the results of an `active` model are authoritative.
    state: ModelState
    #: The description in its card; empty if unknown.
    trained_on: str
    #: The warnings in its card, as sentences that readers must know.
    warnings: list[str]
