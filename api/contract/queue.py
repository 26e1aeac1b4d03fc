"""The queue: its current numbers and its history."""

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, create_model

from shared.bounded import Bounded
from shared.vocabulary.states import JobState, WorkerKind


class HistoryQuery(Bounded):
    """The period of the history."""

    hours: float = Field(6, gt=0, le=168, description="Length of the history in hours. Samples are kept for 7 days.")


class RetryRequest(Bounded):
    """Selects failed jobs to retry."""

    code: str = Field(min_length=1, max_length=100, description="The error code of the failed jobs.")
    hours: float = Field(24, gt=0, le=8760, description="Only jobs that failed in the last so many hours.")


class RetriedAnswer(BaseModel):
    """The number of retried jobs, by the stage at which they continue."""

    to_prepare: int
    to_detect: int


class PriorityRequest(Bounded):
    """Names what is to go first or last."""

    id: UUID = Field(description="A submission, a study or a job.")
    priority: int = Field(ge=0, le=9, description="A higher one goes first.")


class PriorityAnswer(BaseModel):
    """The number of open jobs, and of files of a submission without a job, whose priority was changed."""

    model_config = ConfigDict(from_attributes=True)

    jobs: int
    files: int


class WaitingTasks(BaseModel):
    """The open tasks of the trainer of one kind."""

    kind: str
    waiting: int
    running: int


class WorkerAnswer(BaseModel):
    """A worker process."""

    id: str
    stage: WorkerKind
    device: str | None
    #: The model of the last batch of a detect worker.
    model_id: UUID | None
    model_name: str | None
    started_at: datetime
    seen_at: datetime
    #: Whether it was seen within the last 90 s.
    alive: bool
    batches: int
    images: int
    #: Average over all its batches; None before the first.
    step_s: float | None


class FailureAnswer(BaseModel):
    """Jobs of this key's project that ended without a result for the same reason, and were not retried since."""

    model_config = ConfigDict(from_attributes=True)

    code: str
    #: `rejected`: the input is unfit, and would be rejected again. `failed`: can be retried.
    state: JobState
    count: int
    latest_at: datetime
    #: Reason of the latest one.
    reason: str | None
    study_ids: list[UUID]


class QueueNumbers(BaseModel):
    """The numbers of the queue and its workers, which all projects share."""

    #: By state, of jobs that are not final.
    jobs: dict[JobState, int]
    #: By stage; 0 if no job waits.
    oldest_waiting_s: dict[WorkerKind, float]
    finished_last_minute: dict[JobState, int]
    finished_last_day: dict[JobState, int]
    #: Average number of images per batch in the last minutes, None without a batch; and the maximum.
    batch_images: float | None
    batch_size: int
    #: Average duration of a batch in the last minutes, in seconds.
    step_s: float | None
    tasks: list[WaitingTasks]
    workers: list[WorkerAnswer]


class QueueAnswer(QueueNumbers):
    """The queue, and the failures of the key's project."""

    #: From the last 24 hours.
    failures: list[FailureAnswer]


#: A column for each open state, such as `queued`: the maximum number of jobs in a time span.
_COLUMNS: Any = {state.value: (list[int], ...) for state in JobState.open()}


class HistoryAnswer(create_model("JobsByState", **_COLUMNS)):  # type: ignore[misc]
    """The history of the queue, as columns of equal length, the oldest first."""

    at: list[datetime]
    oldest_waiting_s: list[float]
    #: Jobs that ended in this state, per minute.
    succeeded_per_min: list[float]
    rejected_per_min: list[float]
    failed_per_min: list[float]
    #: Averages of the batches in the span; None without a batch.
    batch_images: list[float | None]
    step_s: list[float | None]
