"""Trainings and evaluations."""

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from api.contract.paging import Page
from shared.bounded import MOST_INT4, Bounded, Int4
from shared.training.config import EvaluationConfig, GateConfig
from shared.vocabulary.states import TaskState


class TrainingPath(Bounded):
    """Which training."""

    training_id: UUID


class EventsPath(TrainingPath):
    """Which attempt of which training."""

    attempt: Int4


class EvaluationPath(Bounded):
    """Which evaluation."""

    evaluation_id: UUID


class TrainingRequest(Bounded):
    """What to train on what."""

    dataset: str = Field(max_length=100, description="A dataset's id, or a name: its latest version.")
    recipe: str = Field("default", max_length=100, description="The config to start from.")
    config: dict[str, Any] = Field({}, description="Keys of the recipe's config that are to differ.")
    gate: GateConfig | None = Field(None, description="What decides whether the model becomes active; none: nobody.")
    name: str | None = Field(None, min_length=1, max_length=200, description="By default the dataset's.")


class EvaluationRequest(Bounded):
    """What to evaluate on what."""

    model: UUID | Literal["active"] = "active"
    dataset: str = Field(max_length=100, description="A dataset's id, or a name: its latest version.")
    config: EvaluationConfig = EvaluationConfig()


class TaskAnswer(BaseModel):
    """Where a task of the trainer stands."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    state: TaskState
    #: How often it was begun, or gone on with.
    attempt: int
    #: How far it is; empty before it has begun.
    progress: dict[str, Any]
    #: Why it failed, or why its last attempt did.
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
    #: The time that its schedule meant, and how many seconds after it the run was asked for.
    due_at: datetime | None
    late_s: float | None
    #: Attempts of which there is an event file for TensorBoard.
    events: list[int]
    #: What came of it: a candidate.
    model_id: UUID | None
    #: What to know about it, such as classes that the model to start from lacks.
    notes: list[str] = []


class TrainingsAnswer(Page):
    """Trainings, the newest first."""

    trainings: list[TrainingAnswer]


class PointsQuery(Bounded):
    """Which points."""

    after: int = Field(-1, ge=-1, le=MOST_INT4, description="Only points after this many steps.")


class TrainingPointAnswer(BaseModel):
    """A point of a training's curves."""

    model_config = ConfigDict(from_attributes=True)

    #: Steps and epochs that were done.
    step: int
    epoch: float
    #: Means over the steps since the point before: the losses and the learning rate; after an epoch `ap40`, on a sample
    #: of the evaluated split.
    values: dict[str, float]


class TrainingPointsAnswer(BaseModel):
    """Points in the order of their steps."""

    #: A new attempt goes on from the last checkpoint: points after its first one are told anew.
    attempt: int
    points: list[TrainingPointAnswer]


class EvaluationAnswer(TaskAnswer):
    """An evaluation; its metrics once it has succeeded."""

    model_id: UUID
    dataset_id: UUID
    config: dict[str, Any]
    metrics: dict[str, Any] | None


class EvaluationsAnswer(Page):
    """Evaluations, the newest first."""

    evaluations: list[EvaluationAnswer]
