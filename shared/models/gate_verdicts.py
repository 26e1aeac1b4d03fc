"""The gate's last decision about a model, as people are shown it before they promote the model."""

from collections.abc import Collection
from datetime import datetime
from typing import Literal
from uuid import UUID

import sqlalchemy as sa
from pydantic import BaseModel
from sqlalchemy.orm import Session

from shared.database.project_scope import ACROSS_PROJECTS
from shared.tables import GateDecision
from shared.vocabulary.states import TaskState

#: Of a reason.
MOST_REASON = 500


class GateVerdict(BaseModel):
    """The gate's last decision about a model."""

    decision_id: UUID
    state: TaskState
    #: `passed`: good enough, but promotion was not asked for. None until it is decided.
    outcome: Literal["promoted", "passed", "refused"] | None
    #: mAP@0.4 of the model, and of the one that was active then; None where none was, or nothing is decided.
    candidate_map40: float | None
    active_map40: float | None
    gain: float | None
    low: float | None
    high: float | None
    created_at: datetime

    @classmethod
    def of(cls, decision: GateDecision) -> "GateVerdict":
        """Describe a decision's row."""
        figures = decision.figures or {}
        outcome: Literal["promoted", "passed", "refused"] | None = None
        if decision.figures is not None:
            outcome = "promoted" if decision.promoted else "passed" if figures.get("passes") else "refused"
        return cls(
            decision_id=decision.id,
            state=TaskState(decision.state),
            outcome=outcome,
            created_at=decision.created_at,
            **{name: figures.get(name) for name in ("candidate_map40", "active_map40", "gain", "low", "high")},
        )

    def in_words(self) -> str:
        """The decision and both figures, as a sentence."""
        if self.outcome is None:
            return f"The gate has not decided about this model: its decision is {self.state}."
        verdict = {"refused": "refused", "passed": "passed", "promoted": "promoted"}[self.outcome]
        active = "no model was active" if self.active_map40 is None else f"{self.active_map40:.4f} of the active model"
        figures = "" if self.candidate_map40 is None else f" mAP@0.4 {self.candidate_map40:.4f}; {active}."
        return f"The gate {verdict} this model.{figures}"


def read_verdicts(
    session: Session, model_ids: Collection[UUID], *, of_all_projects: bool = False
) -> dict[UUID, GateVerdict]:
    """Return the last decision about each model, a decided one where there is any; models without one are left out."""
    about = sa.select(GateDecision).where(GateDecision.candidate_model_id.in_(model_ids))
    in_order = about.order_by(GateDecision.figures.is_not(None), GateDecision.id)
    rows = session.scalars(in_order, execution_options=ACROSS_PROJECTS if of_all_projects else {})
    return {row.candidate_model_id: GateVerdict.of(row) for row in rows}
