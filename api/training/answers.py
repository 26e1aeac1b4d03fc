"""Converts rows of models and trainings to answers of the API."""

from api.contract.models import ModelAnswer
from api.contract.training import TaskAnswer, TrainingAnswer
from shared.models.verdict import GateVerdict
from shared.tables import Model, TrainingRun
from shared.vocabulary.states import ModelState


def describe_model(model: Model, gate: GateVerdict | None) -> ModelAnswer:
    """Return a model, with the gate's last decision about it."""
    return ModelAnswer(
        id=model.id,
        name=model.name,
        digest=model.digest,
        state=ModelState(model.state),
        created_at=model.created_at,
        promoted_at=model.promoted_at,
        retired_at=model.retired_at,
        card=model.card,
        gate=gate,
    )


def describe_training(run: TrainingRun) -> TrainingAnswer:
    """Return a training."""
    return TrainingAnswer(
        **TaskAnswer.model_validate(run).model_dump(),
        name=run.name,
        dataset_id=run.dataset_id,
        config=run.config,
        config_digest=run.config_digest,
        gate=run.gate,
        schedule_id=run.schedule_id,
        due_at=run.due_at,
        late_s=None if run.due_at is None else (run.created_at - run.due_at).total_seconds(),
        events=sorted(map(int, run.events)),
        model_id=run.model_id,
        notes=run.notes,
    )
