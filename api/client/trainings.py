"""Datasets, trainings, evaluations, schedules and decisions of the gate."""

from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any, Literal
from uuid import UUID

from api.client.connection import Connection
from api.client.waiting import look_until
from api.contract.datasets import DatasetAnswer, DatasetsAnswer, FailedImage, FailuresAnswer
from api.contract.schedules import (
    GateDecisionAnswer,
    GateDecisionsAnswer,
    GateRequest,
    ScheduleAnswer,
    ScheduleChange,
    ScheduleRequest,
    SchedulesAnswer,
)
from api.contract.training import (
    DetectionsFormat,
    EvaluationAnswer,
    EvaluationRequest,
    EvaluationsAnswer,
    TaskAnswer,
    TrainingAnswer,
    TrainingRequest,
    TrainingsAnswer,
)
from shared.ids import new_id
from shared.training.config import EvaluationConfig, GateConfig
from shared.training.dataset_source import DatasetRequest

#: Between two looks at a task, which takes minutes or hours.
TASK_PAUSE_S = 2.0


class Trainings(Connection):
    """Trainings and evaluations by the trainer."""

    def train(
        self,
        dataset: str,
        *,
        recipe: str = "default",
        config: Mapping[str, Any] | None = None,
        gate: GateConfig | None = None,
        name: str | None = None,
    ) -> TrainingAnswer:
        """Queue a training on a dataset's id or name; `config` holds the differences from the recipe."""
        body = TrainingRequest(dataset=dataset, recipe=recipe, config=dict(config or {}), gate=gate, name=name)
        return self._post(TrainingAnswer, "/v1/trainings", body, key=str(new_id()))

    def training(self, training_id: UUID) -> TrainingAnswer:
        """Return where a training stands."""
        return self._get(TrainingAnswer, f"/v1/trainings/{training_id}")

    def trainings(self) -> Iterator[TrainingAnswer]:
        """Yield trainings, the newest first, page by page."""
        for page in self._pages(TrainingsAnswer, "/v1/trainings"):
            yield from page.trainings

    def training_log(self, training_id: UUID) -> str:
        """Return the last lines that a training's processes wrote."""
        return self._request("GET", f"/v1/trainings/{training_id}/log").decode()

    def training_events(self, training_id: UUID, attempt: int) -> bytes:
        """Return TensorBoard's event file of one attempt."""
        return self._request("GET", f"/v1/trainings/{training_id}/events/{attempt}")

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

    def resume_training(self, training_id: UUID) -> TrainingAnswer:
        """Continue a failed or cancelled training from its last checkpoint; `task_not_resumable` in other states."""
        return self._post(TrainingAnswer, f"/v1/trainings/{training_id}/resume")

    def evaluate(
        self, dataset: str, *, model: UUID | Literal["active"] = "active", config: EvaluationConfig | None = None
    ) -> EvaluationAnswer:
        """Queue an evaluation of a model on a dataset's id or name."""
        body = EvaluationRequest(model=model, dataset=dataset, config=config or EvaluationConfig())
        return self._post(EvaluationAnswer, "/v1/evaluations", body, key=str(new_id()))

    def evaluation(self, evaluation_id: UUID) -> EvaluationAnswer:
        """Return an evaluation, with its metrics once it has succeeded."""
        return self._get(EvaluationAnswer, f"/v1/evaluations/{evaluation_id}")

    def evaluations(self) -> Iterator[EvaluationAnswer]:
        """Yield evaluations, the newest first, page by page."""
        for page in self._pages(EvaluationsAnswer, "/v1/evaluations"):
            yield from page.evaluations

    def wait_evaluation(self, evaluation_id: UUID, *, timeout_s: float = float("inf")) -> EvaluationAnswer:
        """Wait until an evaluation is final or the time is over; return it as it is."""
        return look_until(lambda _: self.evaluation(evaluation_id), _is_final, timeout_s, pause_s=TASK_PAUSE_S)

    def report(self, evaluation_id: UUID) -> bytes:
        """Return an evaluation's report, an HTML page."""
        return self._request("GET", f"/v1/evaluations/{evaluation_id}/report")

    def export_detections(self, evaluation_id: UUID, file: IO[str], form: DetectionsFormat) -> None:
        """Write an evaluation's detections to a file, as the server formats them."""
        with self._stream(f"/v1/evaluations/{evaluation_id}/detections", {"format": form}) as answer:
            for piece in answer.iter_text():
                file.write(piece)

    def ask_gate(self, model_id: UUID, config: GateConfig) -> GateDecisionAnswer:
        """Have the gate decide about a model. A gate that promotes needs the scope `system`."""
        body = GateRequest(model_id=model_id, config=config)
        return self._post(GateDecisionAnswer, "/v1/gate-decisions", body, key=str(new_id()))

    def gate_decision(self, decision_id: UUID) -> GateDecisionAnswer:
        """Return where a decision stands, with its numbers and reasons."""
        return self._get(GateDecisionAnswer, f"/v1/gate-decisions/{decision_id}")

    def gate_decisions(self) -> Iterator[GateDecisionAnswer]:
        """Yield decisions of the gate, the newest first, page by page."""
        for page in self._pages(GateDecisionsAnswer, "/v1/gate-decisions"):
            yield from page.gate_decisions

    def import_dataset(self, request: DatasetRequest) -> DatasetAnswer:
        """Have a trainer make a dataset; its files lie where the server reads them."""
        return self._post(DatasetAnswer, "/v1/datasets", request, key=str(new_id()))

    def dataset(self, dataset_id: UUID) -> DatasetAnswer:
        """Return the state of an import and the content of its dataset."""
        return self._get(DatasetAnswer, f"/v1/datasets/{dataset_id}")

    def datasets(self) -> Iterator[DatasetAnswer]:
        """Yield datasets, the newest first, page by page."""
        for page in self._pages(DatasetsAnswer, "/v1/datasets"):
            yield from page.datasets

    def find_dataset(self, name: str) -> DatasetAnswer:
        """Return a dataset by its id, the beginning of it, or its name: its latest version."""
        return self._get(DatasetsAnswer, "/v1/datasets", named=name).datasets[0]

    def dataset_document(self, dataset_id: UUID) -> bytes:
        """Return a dataset as a COCO document; refused with `not_ready` before its import has succeeded."""
        return self._request("GET", f"/v1/datasets/{dataset_id}/coco")

    def dataset_failures(self, dataset_id: UUID) -> list[FailedImage]:
        """Return the images that could not be taken into a dataset."""
        return self._get(FailuresAnswer, f"/v1/datasets/{dataset_id}/failures").failures

    def schedules(self) -> list[ScheduleAnswer]:
        """Return every schedule, by name."""
        return self._get(SchedulesAnswer, "/v1/schedules").schedules

    def create_schedule(self, request: ScheduleRequest) -> ScheduleAnswer:
        """Add a schedule."""
        return self._post(ScheduleAnswer, "/v1/schedules", request, key=str(new_id()))

    def change_schedule(self, schedule_id: UUID, **changes: Any) -> ScheduleAnswer:
        """Change the given fields of a schedule, like `PATCH /v1/schedules/ID`."""
        body = ScheduleChange.model_validate(changes)
        answer = self._request("PATCH", f"/v1/schedules/{schedule_id}", body=body)
        return self._read(ScheduleAnswer, answer)

    def delete_schedule(self, schedule_id: UUID) -> None:
        """Remove a schedule; its runs stay."""
        self._request("DELETE", f"/v1/schedules/{schedule_id}")

    def run_schedule(self, schedule_id: UUID) -> TrainingAnswer:
        """Start a run of a schedule now, regardless of its rules."""
        return self._post(TrainingAnswer, f"/v1/schedules/{schedule_id}/run", key=str(new_id()))


def _is_final(task: TaskAnswer) -> bool:
    return task.state.is_final
