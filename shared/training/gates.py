"""Queues gate decisions that are requested through the API. `trainer.training` queues the one after a training."""

from uuid import UUID

from sqlalchemy.orm import Session

from shared.models import registry
from shared.tables import GateDecision
from shared.training.config import GateConfig
from shared.training.trainings import check_gate


def ask_gate(session: Session, *, project_id: UUID, candidate_model_id: UUID, config: GateConfig) -> GateDecision:
    """Queue a project's decision about a model; return its row. Raises `NotFound` and the errors of `check_gate`."""
    registry.require(session, candidate_model_id, parameter="model_id")
    check_gate(session, project_id, config)
    decision = GateDecision(
        project_id=project_id, candidate_model_id=candidate_model_id, config=config.model_dump(mode="json")
    )
    session.add(decision)
    session.flush()
    session.refresh(decision)
    return decision
