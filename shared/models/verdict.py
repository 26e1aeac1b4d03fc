"""The gate's last decision about a model, which is shown before a promotion."""

from datetime import datetime
from typing import Literal
from uuid import UUID

from pydantic import BaseModel

from shared.vocabulary.headlines import MAP40, WITH_NO_FINDING, name_map40
from shared.vocabulary.states import TaskState

#: Maximum characters in the reason of a promotion.
MAX_REASON_CHARACTERS = 500


class GateVerdict(BaseModel):
    """The gate's last decision about a model."""

    decision_id: UUID
    state: TaskState
    #: `passed`: good enough, but promotion was not requested. None until it is decided.
    outcome: Literal["promoted", "passed", "refused"] | None
    #: What was compared, as in the gate's config.
    metric: str = MAP40
    #: The metric of the model and of the model active at that time; None if there was none, or without an outcome.
    candidate_map40: float | None
    active_map40: float | None
    gain: float | None
    low: float | None
    high: float | None
    created_at: datetime

    def in_words(self) -> str:
        """Return the decision and both figures as a sentence."""
        if self.outcome is None:
            return f"The gate has not decided about this model: its decision is {self.state}."
        verdict = {"refused": "refused", "passed": "passed", "promoted": "promoted"}[self.outcome]
        active = "no model was active" if self.active_map40 is None else f"{self.active_map40:.4f} of the active model"
        metric = name_map40(with_no_finding=self.metric == WITH_NO_FINDING)
        figures = "" if self.candidate_map40 is None else f" {metric} {self.candidate_map40:.4f}; {active}."
        return f"The gate {verdict} this model.{figures}"
