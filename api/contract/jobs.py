"""Jobs: one image under one model, and its state."""

from datetime import datetime
from uuid import UUID

from pydantic import BaseModel, Field

from shared.bounded import Bounded
from shared.vocabulary.flags import Flag
from shared.vocabulary.states import JobState

#: The most jobs that one request asks for.
MOST_JOBS = 100


class JobPath(Bounded):
    """Which job."""

    job_id: UUID


class JobQuery(Bounded):
    """Whether to wait."""

    wait: float = Field(0, ge=0, le=60, description="Seconds to wait at most for the job's end.")


class JobsQuery(Bounded):
    """Which jobs."""

    id: list[UUID] = Field(min_length=1, max_length=MOST_JOBS, description="Their ids.")


class JobAnswer(BaseModel):
    """One image under one model, and where it stands."""

    id: UUID
    study_id: UUID
    image_id: UUID
    #: The model that was named or, once claimed for detection, the one that detects.
    model_id: UUID | None
    state: JobState
    #: Why it is rejected or failed, or why its last attempt was.
    code: str | None
    reason: str | None
    #: What makes the image doubtful; None until it is prepared.
    flags: list[Flag] | None
    attempt: int
    priority: int
    created_at: datetime
    ready_at: datetime | None
    finished_at: datetime | None


class JobsAnswer(BaseModel):
    """Jobs in the order of their ids; one that there is not in this project is left out."""

    jobs: list[JobAnswer]
