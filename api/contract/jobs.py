"""Jobs: one image under one model, and its state."""

from datetime import datetime
from uuid import UUID

from pydantic import BaseModel, Field

from shared.bounded import Bounded
from shared.vocabulary.flags import Flag
from shared.vocabulary.states import JobState

#: The maximum number of jobs in a request.
MAX_JOBS = 100


class JobPath(Bounded):
    """Identifies a job."""

    job_id: UUID


class JobQuery(Bounded):
    """Whether to wait."""

    wait: float = Field(0, ge=0, le=60, description="Maximum seconds to wait for the end of the job.")


class JobsQuery(Bounded):
    """Selects jobs."""

    id: list[UUID] = Field(min_length=1, max_length=MAX_JOBS, description="Ids of jobs.")


class JobAnswer(BaseModel):
    """One image under one model, and its state."""

    id: UUID
    study_id: UUID
    image_id: UUID
    #: The requested model or, after the job was claimed for detection, the model that detects.
    model_id: UUID | None
    state: JobState
    #: Why the job is rejected or failed, or why its last attempt failed.
    code: str | None
    reason: str | None
    #: Reasons to doubt the image; None until it is prepared.
    flags: list[Flag] | None
    attempt: int
    priority: int
    created_at: datetime
    ready_at: datetime | None
    finished_at: datetime | None


class JobsAnswer(BaseModel):
    """Jobs in the order of their ids; ids that do not exist in this project are left out."""

    jobs: list[JobAnswer]
