"""Converts rows of models and trainings to answers of the API."""

from api.contract.models import ModelAnswer
from api.contract.training import TrainingAnswer
from api.http.resource import fields_of
from shared.models.verdict import GateVerdict
from shared.tables import Model, TrainingRun


def describe_model(model: Model, gate: GateVerdict | None) -> ModelAnswer:
    """Return a model, with the gate's last decision about it."""
    return ModelAnswer(**fields_of(ModelAnswer, model, "gate"), gate=gate)


def describe_training(run: TrainingRun) -> TrainingAnswer:
    """Return a training."""
    late_s = None if run.due_at is None else (run.created_at - run.due_at).total_seconds()
    columns = fields_of(TrainingAnswer, run, "late_s", "events")
    return TrainingAnswer(**columns, late_s=late_s, events=sorted(map(int, run.events)))
