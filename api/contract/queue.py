"""What the API tells of the queue."""

from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

from pydantic import BaseModel, Field

from shared.bounded import Bounded
from shared.vocabulary.states import JobState, Stage

if TYPE_CHECKING:  # a client needs no queue
    from shared.queue.samples import Span
    from shared.submissions.failures import Failure


class HistoryQuery(Bounded):
    """How much of the past."""

    hours: float = Field(6, gt=0, le=168, description="From so long ago until now; samples are kept for 7 days.")


class RetryRequest(Bounded):
    """Which failed jobs to try again."""

    code: str = Field(min_length=1, max_length=100, description="Why they failed.")
    hours: float = Field(24, gt=0, le=8760, description="Those that failed within so many hours.")


class RetriedAnswer(BaseModel):
    """How many jobs are tried again, by the stage at which they go on."""

    to_prepare: int
    to_detect: int


class WaitingTasks(BaseModel):
    """The trainer's tasks of one kind that have not come to their end."""

    kind: str
    waiting: int
    running: int


class WorkerAnswer(BaseModel):
    """A worker process."""

    id: str
    stage: Stage
    device: str | None
    #: Under which a detect worker last worked.
    model_id: UUID | None
    model_name: str | None
    started_at: datetime
    seen_at: datetime
    #: Whether it has been seen lately enough to count as alive.
    alive: bool
    batches: int
    images: int
    #: Over all its batches; None before the first.
    step_s: float | None


class FailureAnswer(BaseModel):
    """Jobs of this key's project that ended without a result for the same reason, and were not tried again since."""

    code: str
    #: `rejected`: the input is unfit, and would be rejected again. `failed`: may be tried again.
    state: JobState
    count: int
    latest_at: datetime
    #: Of the latest.
    reason: str | None
    study_ids: list[UUID]

    @classmethod
    def of(cls, failure: "Failure") -> "FailureAnswer":
        """Describe a failure."""
        return cls(
            code=failure.code,
            state=failure.state,
            count=failure.count,
            latest_at=failure.latest_at,
            reason=failure.reason,
            study_ids=list(failure.study_ids),
        )


class QueueNumbers(BaseModel):
    """How full the queue is and what the workers do: of the whole system, whose workers all projects share."""

    #: By state, of jobs that are not final.
    jobs: dict[JobState, int]
    #: By stage; 0 where nothing waits.
    oldest_waiting_s: dict[Stage, float]
    finished_last_minute: dict[JobState, int]
    finished_last_day: dict[JobState, int]
    #: Images in a batch of the last minutes, on average, and the most that there may be; None without a batch.
    batch_images: float | None
    batch_size: int
    #: Seconds that a batch of the last minutes took, on average.
    step_s: float | None
    tasks: list[WaitingTasks]
    workers: list[WorkerAnswer]


class QueueAnswer(QueueNumbers):
    """The queue, and what this key's project has to know of it."""

    #: Of the last 24 hours.
    failures: list[FailureAnswer]


class HistoryAnswer(BaseModel):
    """What the queue was like, as columns of equal length, the oldest first."""

    at: list[datetime]
    queued: list[int]
    preparing: list[int]
    ready: list[int]
    detecting: list[int]
    oldest_waiting_s: list[float]
    #: Jobs that came to this end, a minute.
    succeeded_per_min: list[float]
    rejected_per_min: list[float]
    failed_per_min: list[float]
    #: Of the batches meanwhile, on average; None where there was none.
    batch_images: list[float | None]
    step_s: list[float | None]

    @classmethod
    def of(cls, spans: "list[Span]") -> "HistoryAnswer":
        """Turn spans into columns."""
        return cls(
            at=[span.at for span in spans],
            queued=[span.queued for span in spans],
            preparing=[span.preparing for span in spans],
            ready=[span.ready for span in spans],
            detecting=[span.detecting for span in spans],
            oldest_waiting_s=[round(span.oldest_waiting_s, 1) for span in spans],
            succeeded_per_min=[_per_min(span.succeeded, span) for span in spans],
            rejected_per_min=[_per_min(span.rejected, span) for span in spans],
            failed_per_min=[_per_min(span.failed, span) for span in spans],
            batch_images=[round(span.images / span.batches, 2) if span.batches else None for span in spans],
            step_s=[round(span.step_s / span.batches, 4) if span.batches else None for span in spans],
        )


def _per_min(count: int, span: "Span") -> float:
    return round(60 * count / span.elapsed_s, 2)
