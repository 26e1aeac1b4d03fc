"""The query and the result of a search for studies."""

import re
from datetime import MAXYEAR, UTC, date, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Literal, NamedTuple
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, Field, field_validator, model_validator

from api.contract.findings import NOTICE
from api.contract.models import ModelReference
from api.contract.paging import Page, PageQuery
from shared.vocabulary.flags import Flag
from shared.vocabulary.states import JobState

#: Minimum number of characters of a digest; fewer would match too many.
MIN_DIGEST_CHARACTERS = 6
_UUID = re.compile(r"[0-9a-f]{8}(-?[0-9a-f]{4}){3}-?[0-9a-f]{12}")
_DIGEST = re.compile(rf"[0-9a-f]{{{MIN_DIGEST_CHARACTERS},64}}")
#: In a cursor, instead of a probability.
_UNRATED = "none"
_RATED = rf"^({_UNRATED}|[0-9](\.[0-9]+)?(e-[0-9]+)?)_{_UUID.pattern}$"
#: Allows the letters that some writers use in UIDs, but no names.
_UID = re.compile(r"(?=.{1,64}\Z)[0-9][0-9A-Za-z_-]*(\.[0-9A-Za-z_-]+)+")

#: A day starts at midnight UTC. As the end of a period, the day is included.
Moment = Annotated[AwareDatetime | date, Field(union_mode="left_to_right")]


class SearchedState(StrEnum):
    """The states of jobs, and `open` for all that are not final."""

    vars().update({state.name: state.value for state in JobState})  # the members, such as `FAILED = "failed"`
    OPEN = "open"

    @property
    def job_states(self) -> list[JobState]:
        """Return the states of jobs that match."""
        if self is SearchedState.OPEN:
            return list(JobState.open())
        return [JobState(self)]


class StudyOrder(StrEnum):
    """The orders of studies."""

    NEWEST = "newest"
    ABNORMALITY = "abnormality"


#: The place of a study in an order: its id or, by abnormality, `PROBABILITY_ID`.
StudyCursor = UUID | Annotated[str, Field(pattern=_RATED)]


class Place(NamedTuple):
    """The place of a study in the order by abnormality."""

    abnormality: float | None
    study_id: UUID

    @classmethod
    def read(cls, cursor: StudyCursor) -> "Place":
        """Return the place that a cursor states."""
        abnormality, _, study_id = str(cursor).rpartition("_")
        return cls(float(abnormality) if abnormality != _UNRATED else None, UUID(study_id))

    @property
    def cursor(self) -> StudyCursor:
        """The place as the cursor of a page."""
        return f"{_UNRATED if self.abnormality is None else self.abnormality}_{self.study_id}"


class StudiesQuery(PageQuery):
    """Selects the studies that meet all conditions, and their order."""

    order: StudyOrder = Field(
        StudyOrder.NEWEST,
        description="`abnormality`: the highest probability of any finding first, of equal ones the newest; studies "
        "without one come last.",
    )
    before: StudyCursor | None = Field(  # type: ignore[assignment]  # wider than other pages' cursors
        None, description="Only rows after this one in the order: `next` of the previous page."
    )
    after: StudyCursor | None = Field(
        None, description="Only rows before this one in the order: `previous` of the next page."
    )
    q: str | None = Field(
        None,
        max_length=100,
        description="The id of a study, an image, a job or a submission, a StudyInstanceUID, or the first "
        f"{MIN_DIGEST_CHARACTERS} or more characters of an original's SHA-256.",
    )
    state: SearchedState | None = Field(
        None, description="State of the current job of at least one image. `open`: not final."
    )
    finding: str | None = Field(
        None,
        min_length=1,
        max_length=200,
        pattern=r"^[^\x00]*$",
        description="Name of a class that the active model has found. For images without a result of the active model, "
        "results of other models count.",
    )
    min_score: float = Field(0.3, ge=0, le=1, description="Findings with a lower score do not count and are not shown.")
    min_abnormality: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Minimum probability that an image shows any finding, in a result of the active model.",
    )
    flag: Flag | None = Field(None, description="A flag of at least one image.")
    priority: int | None = Field(None, ge=0, le=9, description="Priority of the current job of at least one image.")
    since: Moment | None = Field(None, description="Received at or after this day, or this time with its offset.")
    until: Moment | None = Field(None, description="Received at or before this time, or this day, in UTC.")

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
        cursor = self.before or self.after
        if cursor is not None and isinstance(cursor, str) != (self.order is StudyOrder.ABNORMALITY):
            raise ValueError("the cursor is of another order: send `next` or `previous` of a page in this order")
        return self

    @property
    def is_narrowed(self) -> bool:
        """Return whether any condition is set."""
        return bool(self.model_fields_set - {"limit", "order", "before", "after", "min_score"})

    @property
    def id_sought(self) -> UUID | None:
        """Return the id in `q`, if it is one."""
        return UUID(self.q) if self.q and _UUID.fullmatch(self.q) else None

    @property
    def digest_sought(self) -> str | None:
        """Return the beginning of a digest in `q`, if it can be one."""
        return self.q if self.q and _DIGEST.fullmatch(self.q) else None

    @property
    def uid_sought(self) -> str | None:
        """Return the StudyInstanceUID in `q`, if it can be one."""
        return self.q if self.q and _UID.fullmatch(self.q) else None

    @property
    def received_from(self) -> datetime | None:
        """Return the start of `since`."""
        return None if self.since is None else _beginning(self.since)

    @property
    def received_before(self) -> datetime | None:
        """Return the end of `until`."""
        if self.until is None:
            return None
        is_moment = isinstance(self.until, datetime)
        return _beginning(self.until) + (timedelta(milliseconds=1) if is_moment else timedelta(days=1))


class TopFinding(BaseModel):
    """A class that was found in a study's images."""

    class_name: str
    #: The highest score.
    score: float


class OtherModelsFindings(BaseModel):
    """The findings of a model other than the active one in a study's images."""

    model: ModelReference
    #: Number of images with a result of this model.
    results: int
    #: The highest probability, over these results, that an image shows any finding; None if the model has no
    #: abnormality head.
    abnormality: float | None
    #: In order of falling score.
    findings: list[TopFinding]


class Unfitness(BaseModel):
    """Why an image of a study has no result."""

    code: str
    reason: str | None


class StudySummary(BaseModel):
    """A study as an entry of a list. Only its thousand newest images are considered."""

    id: UUID
    study_instance_uid: str | None
    created_at: datetime
    image_count: int
    #: The combined state of the relevant jobs: the least advanced open state or, if all are final, the worst one. The
    #: relevant job of an image is its latest job of the active model; if there is none, its latest job of any model.
    state: JobState
    #: Number of images by the state of this job.
    states: dict[JobState, int]
    #: The highest priority of these jobs.
    priority: int
    flags: list[Flag]
    #: The active model, if it has a result for any image; such results are authoritative.
    model: ModelReference | None
    #: Number of images with an authoritative result.
    authoritative_results: int
    #: The highest probability, over the authoritative results, that an image shows any finding; None if there are none,
    #: or if the model has no abnormality head.
    abnormality: float | None
    #: From the authoritative results, by falling score.
    findings: list[TopFinding]
    #: Findings of other models, the most recently active model first. They never count as the active model's.
    other_results: list[OtherModelsFindings]
    #: Codes of rejected and failed images, each code once.
    problems: list[Unfitness]
    #: State of the reviews: None if there are no reviews; `done` if the review of each image with a result is complete,
    #: else `begun`. For an image without an authoritative result, the result that was reviewed last counts.
    review: Literal["begun", "done"] | None


class StudiesAnswer(Page):
    """Studies in the requested order."""

    studies: list[StudySummary]
    #: The model whose findings are authoritative; None if no model is active.
    active_model: ModelReference | None
    #: `before` of the next page; None on the last one.
    next: StudyCursor | None  # type: ignore[assignment]  # wider than other pages' cursors
    #: `after` of the previous page; None on the first one.
    previous: StudyCursor | None
    notice: str = NOTICE


def _beginning(moment: date) -> datetime:
    if isinstance(moment, datetime):
        return moment
    return datetime.combine(moment, datetime.min.time(), UTC)
