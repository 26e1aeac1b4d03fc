"""Bulk submissions: files, uploads, counts and the manifest."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, Field, StrictInt

from shared.bounded import Bounded
from shared.vocabulary.flags import Flag
from shared.vocabulary.states import SubmissionState

#: The maximum number of files that a request can announce, and of rows in a page.
PAGE_FILES = 1000
#: PostgreSQL's largest bigint.
_MOST = 2**63 - 1

#: The position of a file in its submission.
Number = Annotated[StrictInt, Field(ge=0, le=_MOST)]


class AnnouncedFile(Bounded):
    """A file to be uploaded."""

    name: str = Field(
        "", max_length=1024, pattern=r"^[^\x00]*$", description="Your name of the file. The manifest shows it."
    )
    byte_count: int = Field(ge=0, le=5 * 1024**4)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class FilesRequest(Bounded):
    """More files for an open submission."""

    files: list[AnnouncedFile] = Field(min_length=1, max_length=PAGE_FILES)


class SubmissionRequest(Bounded):
    """A new submission, with its first files."""

    files: list[AnnouncedFile] = Field([], max_length=PAGE_FILES)
    priority: int = Field(5, ge=0, le=9, description="Jobs of higher priority are processed first.")
    model_id: UUID | None = Field(None, description="The model to use. Default: the active model.")


class ArrivedRequest(Bounded):
    """Files that have been uploaded."""

    numbers: list[Number] = Field(min_length=1, max_length=PAGE_FILES)


class Part(BaseModel):
    """A part of a large file, to be PUT separately."""

    part_number: int
    offset: int
    byte_count: int
    url: str
    #: Whether the object store already has it.
    done: bool


class Upload(BaseModel):
    """How to upload an announced file."""

    number: int
    #: `expected`: PUT the bytes; `duplicate`: the image is already stored, send nothing; other states come after the
    #: upload.
    state: str
    #: URL to PUT the whole file; a path of this API if `through_api`. None if nothing must be sent or if there are
    #: `parts`. If both are None, get them from `GET …/uploads`, because an answer is limited to a number of parts.
    url: str | None = None
    #: Whether the URL belongs to this API and needs the key; other URLs contain their own signature.
    through_api: bool = False
    headers: dict[str, str] = {}
    #: For a large file: PUT each part that is not done, in any order.
    parts: list[Part] | None = None
    expires_at: datetime | None = None


class UploadsAnswer(BaseModel):
    """Announced files in their order, and how to upload each."""

    uploads: list[Upload]
    #: `after` of the next page; None on the last one.
    next: int | None = None


class Counts(BaseModel):
    """Number of files by outcome; their sum is the number of the submission's files, including archives."""

    expected: int = 0  # not uploaded yet
    arrived: int = 0  # uploaded, to be checked
    accepted: int = 0  # has a job that is not final
    unpacked: int = 0  # archives
    duplicate: int = 0  # the image was already stored; its result can be pending
    succeeded: int = 0
    rejected: int = 0
    failed: int = 0
    cancelled: int = 0
    erased: int = 0  # its study was erased


class SubmissionAnswer(BaseModel):
    """A submission and its progress."""

    id: UUID
    state: SubmissionState
    priority: int
    model_id: UUID | None
    #: `s3://bucket/prefix` if the files were read from a bucket.
    source: str | None
    file_count: int
    counts: Counts
    #: Number of rejected and failed files by code.
    codes: dict[str, int]
    #: Finished files per second since the submission began; None before the first.
    files_per_s: float | None
    #: Seconds until the known files are finished at this rate; None if unknown.
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
    """A new submission, and how to upload its first files."""

    submission: SubmissionAnswer
    uploads: list[Upload]


class ManifestRow(BaseModel):
    """The outcome of one file."""

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
    #: Reasons to doubt the image, separated by spaces in CSV; None until it is prepared.
    flags: list[Flag] | None


class ManifestPage(BaseModel):
    """Rows of a manifest, in the order of their numbers."""

    files: list[ManifestRow]
    #: `after` of the next page; None on the last one.
    next: int | None


class RetryAnswer(BaseModel):
    """The number of retried files."""

    #: Files with a new job, or back in intake.
    retried: int
    #: Files to upload again: see `GET …/uploads`.
    to_upload: int
    submission: SubmissionAnswer


class ManifestQuery(Bounded):
    """Selects rows of the manifest, and their format."""

    after: int = Field(-1, ge=-1, le=_MOST, description="Only rows with a higher number.")
    limit: int = Field(PAGE_FILES, ge=1, le=10_000, description="Maximum number of rows of a JSON page.")
    format: Literal["json", "jsonl", "csv"] = Field("json", description="`jsonl` and `csv` stream all rows.")


class SubmissionPath(Bounded):
    """Identifies a submission."""

    submission_id: UUID


class FilePath(SubmissionPath):
    """Identifies a file of a submission."""

    number: Number


class CreateQuery(Bounded):
    """The source of the files, if not the client."""

    from_: str | None = Field(
        None,
        alias="from",
        pattern=r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[^\x00]{0,1024})?$",
        description="`s3://bucket/prefix`: import the objects there. `CARINA_IMPORT_BUCKETS` must allow it.",
    )


class UploadsQuery(Bounded):
    """Selects files that are not uploaded yet."""

    after: int = Field(-1, ge=-1, le=_MOST, description="Only files with a higher number.")
    limit: int = Field(PAGE_FILES, ge=1, le=PAGE_FILES, description="Maximum number of files in the answer.")


class ProgressQuery(Bounded):
    """Whether to wait."""

    wait: float = Field(0, ge=0, le=60, description="Maximum seconds to wait for a change of the counts or the state.")
