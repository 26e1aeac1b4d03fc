"""Schedules, and decisions of the gate."""

from datetime import datetime
from typing import Any, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, model_validator

from api.contract.paging import Page
from api.contract.training import TaskAnswer
from shared.bounded import MAX_CRON_CHARACTERS, MAX_ZONE_CHARACTERS, Bounded
from shared.training.config import GateConfig
from shared.vocabulary.states import Overlap

_CRON = "Five fields: minute, hour, day of the month, month, day of the week; as in `0 3 * * 0`."


class SchedulePath(Bounded):
    """Identifies a schedule."""

    schedule_id: UUID


class GateDecisionPath(Bounded):
    """Identifies a decision."""

    decision_id: UUID


class ScheduleRequest(Bounded):
    """A schedule to create: when to train, and on which dataset."""

    name: str = Field(min_length=1, max_length=200)
    cron: str = Field(max_length=MAX_CRON_CHARACTERS, description=_CRON)
    time_zone: str = Field(
        max_length=MAX_ZONE_CHARACTERS,
        description="Time zone of the cron expression: an IANA name such as `Europe/Berlin`.",
    )
    dataset_name: str = Field(
        min_length=1, max_length=100, description="Each run uses the latest dataset of this name."
    )
    recipe: str = Field("default", max_length=100, description="The recipe whose config is used.")
    config: dict[str, Any] = Field({}, description="Values that replace those of the recipe.")
    gate: GateConfig | None = Field(None, description="Rules of the gate that promotes the model. Null: no gate.")
    overlap: Overlap = Field(Overlap.SKIP, description="What to do if the last run has not ended.")
    skip_unchanged: bool = Field(True, description="Skip a run if neither the dataset nor the config has changed.")
    enabled: bool = True


class ScheduleChange(Bounded):
    """The fields to change; all other fields stay unchanged."""

    cron: str | None = Field(None, max_length=MAX_CRON_CHARACTERS, description=_CRON)
    time_zone: str | None = Field(None, max_length=MAX_ZONE_CHARACTERS)
    dataset_name: str | None = Field(None, min_length=1, max_length=100)
    recipe: str | None = Field(
        None, max_length=100, description="The recipe whose config replaces that of the schedule."
    )
    config: dict[str, Any] | None = Field(None, description="Values of the config to change.")
    gate: GateConfig | None = Field(None, description="Null: no gate.")
    overlap: Overlap | None = None
    skip_unchanged: bool | None = None
    enabled: bool | None = None

    @model_validator(mode="after")
    def _only_a_gate_may_be_none(self) -> Self:
        for name in self.model_fields_set - {"gate"}:
            if getattr(self, name) is None:
                raise ValueError(f"{name} cannot be null")
        return self


class ScheduleAnswer(BaseModel):
    """A schedule, its next time, and the outcome of its last time."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    name: str
    cron: str
    time_zone: str
    dataset_name: str
    config: dict[str, Any]
    gate: dict[str, Any] | None
    overlap: Overlap
    skip_unchanged: bool
    enabled: bool
    #: None if it is disabled.
    next_at: datetime | None
    last_at: datetime | None
    last_outcome: str | None
    created_at: datetime


class SchedulesAnswer(BaseModel):
    """All schedules, by name."""

    schedules: list[ScheduleAnswer]


class GateRequest(Bounded):
    """The model to compare with the active one, and the configuration."""

    model_id: UUID
    config: GateConfig


class GateDecisionAnswer(TaskAnswer):
    """A decision of the gate; the fields after `config` are None before it has succeeded."""

    candidate_model_id: UUID
    #: The training that made the candidate, if it requested the decision.
    training_run_id: UUID | None
    config: dict[str, Any]
    #: The model that was active; None if there was none.
    baseline_model_id: UUID | None
    candidate_evaluation_id: UUID | None
    baseline_evaluation_id: UUID | None
    promoted: bool | None
    #: The gain, its interval, the limits and each class.
    figures: dict[str, Any] | None
    #: The same as text.
    explanation: str | None


class GateDecisionsAnswer(Page):
    """Decisions, the newest first."""

    gate_decisions: list[GateDecisionAnswer]
