"""What the API takes and gives, as pydantic models; `/openapi.json` is made from these."""

from datetime import datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from shared.bounded import Bounded
from shared.errors import PermanentError
from shared.imaging.facts import Flag
from shared.models.gate_verdicts import MOST_REASON, GateVerdict
from shared.tables import Image, Job, Model
from shared.vocabulary.states import JobState, ModelState

if TYPE_CHECKING:  # a client needs no object store
    from shared.intake.receive import Received

NOTICE = "For research use only. Not a medical device."
#: That one request asks for.
MOST_JOBS = 100

# --- errors ----------------------------------------------------------------------------------------------------------


class InvalidParameter(BaseModel):
    """One parameter that is not valid, and why."""

    name: str
    detail: str


class Problem(BaseModel):
    """An error, after RFC 9457."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    #: Stable; a program goes by this.
    code: str
    #: Of `limit_exceeded`: the setting that is exceeded.
    limit: str | None = None
    #: What is wrong with which parameter, where that is known.
    errors: list[InvalidParameter] | None = None
    #: Of `not_found` and `ambiguous_name`: the ids of things that may have been meant.
    candidates: list[UUID] | None = None


#: The body of an error answer.
PROBLEM = {"content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}}
#: What every route may answer.
PROBLEMS: dict[str | int | HTTPStatus, type[BaseModel] | dict[Any, Any] | None] = {
    "422": {"description": "A parameter is not valid.", **PROBLEM},
    "default": {"description": "Any other error.", **PROBLEM},
}
PNG: dict[str, Any] = {
    "description": "The picture.",
    "content": {"image/png": {"schema": {"type": "string", "format": "binary"}}},
}
METRICS: dict[str, Any] = {
    "description": "The metrics.",
    "content": {"text/plain": {"schema": {"type": "string"}}},
}

# --- what a request says ---------------------------------------------------------------------------------------------


class JobPath(Bounded):
    """Which job."""

    job_id: UUID


class StudyPath(Bounded):
    """Which study."""

    study_id: UUID


class ImagePath(Bounded):
    """Which image."""

    image_id: UUID


class ModelPath(Bounded):
    """Which model."""

    model_id: UUID


class PromotionRequest(Bounded):
    """Why a model is promoted; may be left out, body and all, unless the gate refused the model."""

    model_config = ConfigDict(str_strip_whitespace=True)

    reason: str | None = Field(
        None, min_length=1, max_length=MOST_REASON, description="Kept in the audit: no patient's data."
    )


class RerunQuery(Bounded):
    """How urgent it is."""

    priority: int = Field(5, ge=0, le=9, description="A higher one goes first.")


class SubmitQuery(Bounded):
    """How the files are to be worked on."""

    priority: int = Field(5, ge=0, le=9, description="A higher one goes first.")
    model_id: UUID | None = Field(None, description="The model to detect with; by default the active one.")


class JobQuery(Bounded):
    """Whether to wait."""

    wait: float = Field(0, ge=0, le=60, description="Seconds to wait at most for the job's end.")


class JobsQuery(Bounded):
    """Which jobs."""

    id: list[UUID] = Field(min_length=1, max_length=MOST_JOBS, description="Their ids.")


class FindingsQuery(Bounded):
    """Which findings."""

    min_score: float = Field(0.0, ge=0, le=1, description="Leave out findings with a lower score.")
    model_id: UUID | None = Field(None, description="What this model has found; by default the active one.")


class OverlayQuery(FindingsQuery):
    """Which findings to draw."""

    min_score: float = Field(0.3, ge=0, le=1, description="Leave out findings with a lower score.")


# --- what an answer says ---------------------------------------------------------------------------------------------


class FileOutcome(BaseModel):
    """What became of one file of the request."""

    #: As it was sent; its place in the request, from 0, where originals are de-identified.
    name: str
    outcome: Literal["accepted", "duplicate", "rejected"]
    #: Of a rejected file: why, as a stable code and as a sentence.
    code: str | None = None
    reason: str | None = None
    study_id: UUID | None = None
    image_id: UUID | None = None
    job_id: UUID | None = None

    @classmethod
    def of(cls, name: str, received: "Received") -> "FileOutcome":
        """Say what became of a file that is fit."""
        return cls(
            name=name,
            outcome=received.outcome,
            study_id=received.study_id,
            image_id=received.image_id,
            job_id=received.job_id,
        )

    @classmethod
    def rejected(cls, name: str, error: PermanentError) -> "FileOutcome":
        """Say that a file is unfit."""
        return cls(name=name, outcome="rejected", code=error.code, reason=error.detail)


class FileOutcomes(BaseModel):
    """What became of each file, in the order of the request."""

    files: list[FileOutcome]


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

    @classmethod
    def of(cls, job: Job, image: Image) -> "JobAnswer":
        """Describe a job's row."""
        return cls(
            id=job.id,
            study_id=image.study_id,
            image_id=job.image_id,
            model_id=job.model_id or job.requested_model_id,
            state=JobState(job.state),
            code=job.code,
            reason=job.reason,
            flags=None if image.flags is None else [Flag(flag) for flag in image.flags],
            attempt=job.attempt,
            priority=job.priority,
            created_at=job.created_at,
            ready_at=job.ready_at,
            finished_at=job.finished_at,
        )


class JobsAnswer(BaseModel):
    """Jobs in the order of their ids; one that there is not in this project is left out."""

    jobs: list[JobAnswer]


class ModelAnswer(BaseModel):
    """A detector."""

    id: UUID
    name: str
    digest: str
    state: ModelState
    created_at: datetime
    promoted_at: datetime | None
    retired_at: datetime | None
    #: What it says about itself: classes, canvas, thresholds, metrics, warnings.
    card: dict[str, Any]
    #: The gate's last decision about it; of this project, but for the answer to a promotion.
    gate: GateVerdict | None

    @classmethod
    def of(cls, model: Model, gate: GateVerdict | None) -> "ModelAnswer":
        """Describe a model's row."""
        return cls(
            id=model.id,
            name=model.name,
            digest=model.digest,
            state=ModelState(model.state),
            created_at=model.created_at,
            promoted_at=model.promoted_at,
            retired_at=model.retired_at,
            card=model.card,
            gate=gate,
        )


class ModelsAnswer(BaseModel):
    """Every model, the newest first."""

    models: list[ModelAnswer]


class Health(BaseModel):
    """The process answers."""

    status: Literal["ok"] = "ok"


class DependencyState(BaseModel):
    """Whether a server that the API needs answers, and the error's code where it does not."""

    ok: bool
    code: str | None = None
    #: A sentence that says what to do.
    detail: str | None = None


class Readiness(BaseModel):
    """Whether the API can take work."""

    status: Literal["ready", "not_ready"]
    dependencies: dict[str, DependencyState]
    #: Those without which the API takes work, but work goes on slower.
    degraded: list[str] = []
