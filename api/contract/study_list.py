"""The search for studies: its query, and its result."""

import re
from datetime import MAXYEAR, UTC, date, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Literal
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, Field, field_validator, model_validator

from api.contract.findings import NOTICE
from api.contract.models import ModelReference
from api.contract.paging import Page, PageQuery
from shared.vocabulary.flags import Flag
from shared.vocabulary.states import JobState

#: The least of a digest that is searched for; fewer characters would find too many.
LEAST_DIGEST = 6
_UUID = re.compile(r"[0-9a-f]{8}(-?[0-9a-f]{4}){3}-?[0-9a-f]{12}")
_DIGEST = re.compile(rf"[0-9a-f]{{{LEAST_DIGEST},64}}")
#: With the letters that some writers put there, but not a name.
_UID = re.compile(r"(?=.{1,64}\Z)[0-9][0-9A-Za-z_-]*(\.[0-9A-Za-z_-]+)+")

#: A day begins at midnight UTC; as the end of a time it belongs to it.
Moment = Annotated[AwareDatetime | date, Field(union_mode="left_to_right")]


class SearchedState(StrEnum):
    """The states of jobs, and one word for those that are not final."""

    vars().update({state.name: state.value for state in JobState})  # the members, such as `FAILED = "failed"`
    OPEN = "open"

    @property
    def job_states(self) -> list[JobState]:
        """The states that are meant."""
        if self is SearchedState.OPEN:
            return list(JobState.open())
        return [JobState(self)]


class StudiesQuery(PageQuery):
    """Which studies: those that meet every condition."""

    after: UUID | None = Field(None, description="Only rows newer than this one: `previous` of the page after.")
    q: str | None = Field(
        None,
        max_length=100,
        description="The id of a study, an image, a job or a submission, a StudyInstanceUID, or the first "
        f"{LEAST_DIGEST} or more characters of an original's SHA-256.",
    )
    state: SearchedState | None = Field(
        None, description="Of the job that says where any of its images stands; `open`: not final."
    )
    finding: str | None = Field(
        None,
        min_length=1,
        max_length=200,
        pattern=r"^[^\x00]*$",
        description="A class that the active model has found, by its name; on images without a result of "
        "the active model, any model.",
    )
    min_score: float = Field(0.3, ge=0, le=1, description="Findings with a lower score do not count, nor are shown.")
    flag: Flag | None = Field(None, description="Of any of its images.")
    priority: int | None = Field(None, ge=0, le=9, description="Of the job that says where any of its images stands.")
    since: Moment | None = Field(None, description="Received then or later: a day, or a time with its offset.")
    until: Moment | None = Field(None, description="Received then or earlier; a day counts to its end, in UTC.")

    @field_validator("q")
    @classmethod
    def _can_be_looked_up(cls, text: str | None) -> str | None:
        text = text.strip() if text else ""
        if not text or _UID.fullmatch(text):
            return text or None
        if not any(kind.fullmatch(text.lower()) for kind in (_UUID, _DIGEST)):
            raise ValueError(
                "an id, a StudyInstanceUID or the beginning of a SHA-256 can be searched for; nothing is known of names"
            )
        return text.lower()

    @field_validator("since", "until")
    @classmethod
    def _is_in_a_calendar(cls, moment: date | None) -> date | None:
        if moment is not None and not 1970 <= moment.year < MAXYEAR:
            raise ValueError("nothing was received then")
        return moment

    @model_validator(mode="after")
    def _has_one_cursor(self) -> "StudiesQuery":
        if self.before is not None and self.after is not None:
            raise ValueError("a page has one cursor: `before` or `after`")
        return self

    @property
    def is_narrowed(self) -> bool:
        """Whether it asks for less than every study."""
        return bool(self.model_fields_set - {"limit", "before", "after", "min_score"})

    @property
    def id_sought(self) -> UUID | None:
        """The id that `q` is, if it is one."""
        return UUID(self.q) if self.q and _UUID.fullmatch(self.q) else None

    @property
    def digest_sought(self) -> str | None:
        """The beginning of a digest that `q` may be."""
        return self.q if self.q and _DIGEST.fullmatch(self.q) else None

    @property
    def uid_sought(self) -> str | None:
        """The StudyInstanceUID that `q` may be."""
        return self.q if self.q and _UID.fullmatch(self.q) else None

    @property
    def received_from(self) -> datetime | None:
        """When `since` begins."""
        return None if self.since is None else _beginning(self.since)

    @property
    def received_before(self) -> datetime | None:
        """When `until` is over."""
        if self.until is None:
            return None
        is_moment = isinstance(self.until, datetime)
        return _beginning(self.until) + (timedelta(milliseconds=1) if is_moment else timedelta(days=1))


class TopFinding(BaseModel):
    """A class that was found on a study's images."""

    class_name: str
    #: The highest.
    score: float


class OtherModelsFindings(BaseModel):
    """What a model that is not the active one has found on a study's images."""

    model: ModelReference
    #: How many of its images have a result of this model.
    results: int
    #: The highest score first.
    findings: list[TopFinding]


class Unfitness(BaseModel):
    """Why an image of a study has no result."""

    code: str
    reason: str | None


class StudySummary(BaseModel):
    """A study as a line of a list. Of its images the newest thousand are counted and looked at."""

    id: UUID
    study_instance_uid: str | None
    created_at: datetime
    image_count: int
    #: What the jobs that say where its images stand have come to: the least finished state, and of the final ones the
    #: worst. That is an image's latest job of the active model; where it has none, the latest of any model.
    state: JobState
    #: How many images there are by the state of that job.
    states: dict[JobState, int]
    #: The highest of these jobs.
    priority: int
    flags: list[Flag]
    #: The active model, if it has a result of any image; such a result is the authoritative one.
    model: ModelReference | None
    #: How many of its images have one.
    authoritative_results: int
    #: Of the authoritative results, the highest score first.
    findings: list[TopFinding]
    #: What other models have found, the one that was active last first. It never counts as the active model's.
    other_results: list[OtherModelsFindings]
    #: Of images that were rejected or have failed, each code once.
    problems: list[Unfitness]
    #: What readers have said of its results: None, nothing; `begun`; `done` where the review of each image with a
    #: result is. Of an image without an authoritative result it is the result that was reviewed last.
    review: Literal["begun", "done"] | None


class StudiesAnswer(Page):
    """Studies, the newest first."""

    studies: list[StudySummary]
    #: Whose findings are authoritative; None where no model is active.
    active_model: ModelReference | None
    #: `after` of the page of newer studies; None on the first one.
    previous: UUID | None
    notice: str = NOTICE


def _beginning(moment: date) -> datetime:
    if isinstance(moment, datetime):
        return moment
    return datetime.combine(moment, datetime.min.time(), UTC)
