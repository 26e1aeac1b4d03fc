"""Trainings and evaluations."""

from datetime import datetime
from enum import StrEnum
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from api.contract.paging import Page
from shared.bounded import MAX_INT4, Bounded, Int4
from shared.training.config import EvaluationConfig, GateConfig
from shared.vocabulary.states import TaskState


class TrainingPath(Bounded):
    """Identifies a training."""

    training_id: UUID


class EventsPath(TrainingPath):
    """Identifies an attempt of a training."""

    attempt: Int4


class EvaluationPath(Bounded):
    """Identifies an evaluation."""

    evaluation_id: UUID


class DetectionsFormat(StrEnum):
    """The formats of an evaluation's detections."""

    JSON = "json"
    COCO = "coco"
    KAGGLE = "kaggle"


class DetectionsQuery(Bounded):
    """Selects the format of detections."""

    format: DetectionsFormat = Field(
        DetectionsFormat.JSON,
        description="`coco`: results for pycocotools. `kaggle`: the CSV that the VinBigData challenge takes.",
    )


class TrainingRequest(Bounded):
    """A training to start: its dataset and its configuration."""

    dataset: str = Field(max_length=100, description="Id of a dataset, or its name: the latest version.")
    recipe: str = Field("default", max_length=100, description="The recipe whose config is used.")
    config: dict[str, Any] = Field({}, description="Values that replace those of the recipe.")
    gate: GateConfig | None = Field(None, description="Rules of the gate that promotes the model. Null: no gate.")
    name: str | None = Field(None, min_length=1, max_length=200, description="Default: the name of the dataset.")


class EvaluationRequest(Bounded):
    """An evaluation to start: its model, its dataset and its configuration."""

    model: UUID | Literal["active"] = "active"
    dataset: str = Field(max_length=100, description="Id of a dataset, or its name: the latest version.")
    config: EvaluationConfig = EvaluationConfig()


class TaskAnswer(BaseModel):
    """The state of a trainer's task."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    state: TaskState
    #: How often it was started or continued.
    attempt: int
    #: Empty before it has started.
    progress: dict[str, Any]
    #: Why it failed, or why its last attempt failed.
    code: str | None
    reason: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class TrainingAnswer(TaskAnswer):
    """A training: `progress` holds epoch, step, losses, learning rate, ap40, images_per_s, memory_bytes and eta_s."""

    name: str
    dataset_id: UUID
    config: dict[str, Any]
    config_digest: str
    gate: dict[str, Any] | None
    schedule_id: UUID | None
    #: The time of its schedule, and the delay of the request in seconds.
    due_at: datetime | None
    late_s: float | None
    #: Attempts with an event file for TensorBoard.
    events: list[int]
    #: The resulting model, as a candidate.
    model_id: UUID | None
    #: Notes, for example on classes that the initial model does not have.
    notes: list[str] = []


class TrainingsAnswer(Page):
    """Trainings, the newest first."""

    trainings: list[TrainingAnswer]


class PointsQuery(Bounded):
    """Selects points."""

    after: int = Field(-1, ge=-1, le=MAX_INT4, description="Only points after this step.")


class TrainingPointAnswer(BaseModel):
    """A point of a training's curves."""

    model_config = ConfigDict(from_attributes=True)

    #: Number of finished steps and epochs.
    step: int
    epoch: float
    #: Means over the steps since the last point: the losses and the learning rate; after an epoch `ap40`, on a sample
    #: of the evaluated split.
    values: dict[str, float]


class TrainingPointsAnswer(BaseModel):
    """Points in the order of their steps."""

    #: A new attempt continues from the last checkpoint: points after its first one replace earlier ones.
    attempt: int
    points: list[TrainingPointAnswer]


class EvaluationAnswer(TaskAnswer):
    """An evaluation, with its metrics after it has succeeded."""

    model_id: UUID
    dataset_id: UUID
    config: dict[str, Any]
    metrics: dict[str, Any] | None


class EvaluationsAnswer(Page):
    """Evaluations, the newest first."""

    evaluations: list[EvaluationAnswer]
