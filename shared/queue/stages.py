"""The stages of a job, in their order: the one table from which claims, hints, numbers, samples and pages derive."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shared.vocabulary.states import JobState, WorkerKind

if TYPE_CHECKING:  # the table itself loads no library
    from shared.settings import Settings


@dataclass(frozen=True)
class Stage:
    """One step of a job: workers claim jobs that are `waiting`, hold them as `leased`, and leave them as `done`."""

    #: The workers of the stage, whose Celery queue takes its hints.
    worker: WorkerKind
    waiting: JobState
    leased: JobState
    #: The state after success: the next stage's `waiting`, or the end.
    done: JobState
    #: The columns of a job with the times at which the stage could begin, and at which it was done.
    waits_since: str
    done_at: str
    #: Maximum number of jobs that a worker claims at once; one hint is sent for so many jobs.
    batch_size: "Callable[[Settings], int]"

    def __str__(self) -> str:
        return str(self.worker)


PREPARE = Stage(
    worker=WorkerKind.PREPARE,
    waiting=JobState.QUEUED,
    leased=JobState.PREPARING,
    done=JobState.READY,
    waits_since="created_at",
    done_at="ready_at",
    batch_size=lambda settings: settings.prepare_threads,
)
DETECT = Stage(
    worker=WorkerKind.DETECT,
    waiting=JobState.READY,
    leased=JobState.DETECTING,
    done=JobState.SUCCEEDED,
    waits_since="ready_at",
    done_at="finished_at",
    batch_size=lambda settings: settings.batch_size,
)
STAGES = (PREPARE, DETECT)
