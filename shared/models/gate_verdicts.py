"""Reads the gate's last decision about each model."""

from collections.abc import Collection
from typing import Literal
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared.database.project_scope import ACROSS_PROJECTS
from shared.models.verdict import GateVerdict
from shared.tables import GateDecision
from shared.vocabulary.headlines import MAP40
from shared.vocabulary.states import TaskState


def read_verdicts(
    session: Session, model_ids: Collection[UUID], *, of_all_projects: bool = False
) -> dict[UUID, GateVerdict]:
    """Return the last decision about each model, preferably one with an outcome. Models without one are omitted."""
    about = sa.select(GateDecision).where(GateDecision.candidate_model_id.in_(model_ids))
    in_order = about.order_by(GateDecision.figures.is_not(None), GateDecision.id)
    rows = session.scalars(in_order, execution_options=ACROSS_PROJECTS if of_all_projects else {})
    return {row.candidate_model_id: _verdict(row) for row in rows}


def _verdict(decision: GateDecision) -> GateVerdict:
    figures = decision.figures or {}
    outcome: Literal["promoted", "passed", "refused"] | None = None
    if decision.figures is not None:
        outcome = "promoted" if decision.promoted else "passed" if figures.get("passes") else "refused"
    return GateVerdict(
        decision_id=decision.id,
        state=TaskState(decision.state),
        outcome=outcome,
        created_at=decision.created_at,
        metric=figures.get("metric", MAP40),
        **{name: figures.get(name) for name in ("candidate_map40", "active_map40", "gain", "low", "high")},
    )
