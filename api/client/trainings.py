"""Trainings and evaluations."""

from collections.abc import Callable, Mapping
from typing import Any, Literal
from uuid import UUID

from api.client.connection import Connection, look_until
from api.contract.training import EvaluationAnswer, EvaluationRequest, TaskAnswer, TrainingAnswer, TrainingRequest
from shared.training.config import EvaluationConfig, GateConfig

#: Between two looks at what takes minutes or hours.
TASK_PAUSE_S = 2.0


class Trainings(Connection):
    """What the trainer does on request."""

    def train(
        self,
        dataset: str,
        *,
        recipe: str = "default",
        config: Mapping[str, Any] | None = None,
        gate: GateConfig | None = None,
        name: str | None = None,
    ) -> TrainingAnswer:
        """Ask for a training on a dataset's id or name; `config` holds what differs from the recipe.

        Sent once only: a second try after a lost answer could begin a second training.
        """
        body = TrainingRequest(dataset=dataset, recipe=recipe, config=dict(config or {}), gate=gate, name=name)
        return self._read(TrainingAnswer, self._attempt("POST", "/v1/trainings", {}, body=body))

    def training(self, training_id: UUID) -> TrainingAnswer:
        """Return where a training stands."""
        return self._get(TrainingAnswer, f"/v1/trainings/{training_id}")

    def wait_training(
        self,
        training_id: UUID,
        *,
        timeout_s: float = float("inf"),
        on_progress: Callable[[TrainingAnswer], object] = lambda _: None,
    ) -> TrainingAnswer:
        """Wait until a training is final or the time is over; return it as it is. `on_progress` hears of each look."""
        return look_until(lambda _: self.training(training_id), _is_final, timeout_s, on_progress, TASK_PAUSE_S)

    def cancel_training(self, training_id: UUID) -> TrainingAnswer:
        """End a training; refused with `task_is_final` when it has come to its end."""
        return self._post(TrainingAnswer, f"/v1/trainings/{training_id}/cancel")

    def evaluate(
        self, dataset: str, *, model: UUID | Literal["active"] = "active", config: EvaluationConfig | None = None
    ) -> EvaluationAnswer:
        """Ask for an evaluation of a model on a dataset's id or name; sent once only, like `train`."""
        body = EvaluationRequest(model=model, dataset=dataset, config=config or EvaluationConfig())
        return self._read(EvaluationAnswer, self._attempt("POST", "/v1/evaluations", {}, body=body))

    def evaluation(self, evaluation_id: UUID) -> EvaluationAnswer:
        """Return an evaluation, with its metrics once it has succeeded."""
        return self._get(EvaluationAnswer, f"/v1/evaluations/{evaluation_id}")

    def wait_evaluation(self, evaluation_id: UUID, *, timeout_s: float = float("inf")) -> EvaluationAnswer:
        """Wait until an evaluation is final or the time is over; return it as it is."""
        return look_until(lambda _: self.evaluation(evaluation_id), _is_final, timeout_s, pause_s=TASK_PAUSE_S)

    def report(self, evaluation_id: UUID) -> bytes:
        """Return an evaluation's report, an HTML page."""
        return self._request("GET", f"/v1/evaluations/{evaluation_id}/report")


def _is_final(task: TaskAnswer) -> bool:
    return task.state.is_final
