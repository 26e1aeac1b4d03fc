"""Bulk submissions: files, uploads, counts and the manifest."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, Field, StrictInt

from shared.bounded import Bounded
from shared.vocabulary.flags import Flag
from shared.vocabulary.states import SubmissionState

#: The most files that one request announces, and the most rows of a page.
PAGE_FILES = 1000
#: PostgreSQL's largest.
_MOST = 2**63 - 1

#: A file's place in its submission.
Number = Annotated[StrictInt, Field(ge=0, le=_MOST)]


class AnnouncedFile(Bounded):
    """A file that is about to be uploaded."""

    name: str = Field(
        "", max_length=1024, pattern=r"^[^\x00]*$", description="What you call it; told back in the manifest."
    )
    byte_count: int = Field(ge=0, le=5 * 1024**4)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class FilesRequest(Bounded):
    """More files of an open submission."""

    files: list[AnnouncedFile] = Field(min_length=1, max_length=PAGE_FILES)


class SubmissionRequest(Bounded):
    """A new submission, with its first files."""

    files: list[AnnouncedFile] = Field([], max_length=PAGE_FILES)
    priority: int = Field(5, ge=0, le=9, description="A higher one goes first.")
    model_id: UUID | None = Field(None, description="The model to detect with; by default the active one.")


class ArrivedRequest(Bounded):
    """Files whose upload is done."""

    numbers: list[Number] = Field(min_length=1, max_length=PAGE_FILES)


class Part(BaseModel):
    """A piece of a large file, to be PUT on its own."""

    part_number: int
    offset: int
    byte_count: int
    url: str
    #: Whether the object store has it already.
    done: bool


class Upload(BaseModel):
    """What to do with one announced file."""

    number: int
    #: `expected`: PUT the bytes; `duplicate`: the image is known already, send nothing; else it is past that.
    state: str
    #: Where to PUT the whole file; a path of this API where `through_api`. None where nothing is to be sent, or in
    #: parts; with neither, `GET …/uploads` says it: an answer has room for so many parts only.
    url: str | None = None
    #: Whether the URL is this API's and so wants the key; the others carry their own signature.
    through_api: bool = False
    headers: dict[str, str] = {}
    #: Of a large file: PUT each part that is not done, in any order.
    parts: list[Part] | None = None
    expires_at: datetime | None = None


class UploadsAnswer(BaseModel):
    """Announced files in their order, and what to do with each."""

    uploads: list[Upload]
    #: `after` of the next page; None on the last one.
    next: int | None = None


class Counts(BaseModel):
    """How many files have come to what; they sum to the submission's files, archives included."""

    expected: int = 0  # not uploaded yet
    arrived: int = 0  # uploaded, to be checked
    accepted: int = 0  # has a job that is not final
    unpacked: int = 0  # archives
    duplicate: int = 0  # the image was there already; its result may be yet to come
    succeeded: int = 0
    rejected: int = 0
    failed: int = 0
    cancelled: int = 0
    erased: int = 0  # its study was erased


class SubmissionAnswer(BaseModel):
    """A submission and how far it is."""

    id: UUID
    state: SubmissionState
    priority: int
    model_id: UUID | None
    #: `s3://bucket/prefix` where the files were read from a bucket.
    source: str | None
    file_count: int
    counts: Counts
    #: Why files were rejected or failed: how many of each code.
    codes: dict[str, int]
    #: Files that came to their end per second, since the submission began; None before the first.
    files_per_s: float | None
    #: Seconds until the known files are done at that pace; None where nothing can be said.
    eta_s: float | None
    created_at: datetime
    closed_at: datetime | None
    finished_at: datetime | None


class SubmissionsAnswer(BaseModel):
    """Submissions, the newest first."""

    submissions: list[SubmissionAnswer]
    #: `before` of the next page; None on the last one.
    next: UUID | None


class SubmissionCreated(BaseModel):
    """A new submission, and where to put its first files."""

    submission: SubmissionAnswer
    uploads: list[Upload]


class ManifestRow(BaseModel):
    """What became of one file."""

    number: int
    name: str | None
    archive_number: int | None
    entry_number: int | None
    byte_count: int | None
    sha256: str | None
    #: expected, arrived, accepted, duplicate, unpacked, succeeded, rejected:CODE, failed:CODE, cancelled.
    outcome: str
    reason: str | None
    study_id: UUID | None
    image_id: UUID | None
    job_id: UUID | None
    #: What makes the image doubtful, in CSV with a space between any two; None until it is prepared.
    flags: list[Flag] | None


class ManifestPage(BaseModel):
    """Rows of a manifest, in the order of their numbers."""

    files: list[ManifestRow]
    #: `after` of the next page; None on the last one.
    next: int | None


class RetryAnswer(BaseModel):
    """What is tried again."""

    #: Files with a new job, or back in intake.
    retried: int
    #: Files to be uploaded again: see `GET …/uploads`.
    to_upload: int
    submission: SubmissionAnswer


class ManifestQuery(Bounded):
    """Which rows, and how."""

    after: int = Field(-1, ge=-1, le=_MOST, description="Only rows with a higher number.")
    limit: int = Field(PAGE_FILES, ge=1, le=10_000, description="The most rows of a JSON page.")
    format: Literal["json", "jsonl", "csv"] = Field("json", description="`jsonl` and `csv` stream all rows.")


class SubmissionPath(Bounded):
    """Which submission."""

    submission_id: UUID


class FilePath(SubmissionPath):
    """Which file of it."""

    number: Number


class CreateQuery(Bounded):
    """Where the files lie, if not with the client."""

    from_: str | None = Field(
        None,
        alias="from",
        pattern=r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[^\x00]{0,1024})?$",
        description="`s3://bucket/prefix`: take in what lies there, in one of `CARINA_IMPORT_BUCKETS`.",
    )


class UploadsQuery(Bounded):
    """Which of the files that are still to be uploaded."""

    after: int = Field(-1, ge=-1, le=_MOST, description="Only files with a higher number.")
    limit: int = Field(PAGE_FILES, ge=1, le=PAGE_FILES, description="The most files of an answer.")


class ProgressQuery(Bounded):
    """Whether to wait."""

    wait: float = Field(0, ge=0, le=60, description="Seconds to wait at most for the counts or the state to change.")
