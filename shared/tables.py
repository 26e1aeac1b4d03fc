"""The rows that Carina keeps. PostgreSQL is the truth; everything else can be made again from these and the objects."""

import secrets
from datetime import date, datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import ForeignKey, Index, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from shared.ids import new_id
from shared.imaging.facts import Flag
from shared.queue.states import (
    DeliveryState,
    FileState,
    JobState,
    ModelState,
    Overlap,
    Scope,
    Stage,
    SubmissionState,
    TaskState,
)
from shared.reviews.actions import ReviewAction

_NOW = sa.func.now()


def _listed(words: type[StrEnum]) -> str:
    return ", ".join(f"'{word}'" for word in words)


def _one_of(column: str, words: type[StrEnum]) -> sa.CheckConstraint:
    return sa.CheckConstraint(f"{column} IN ({_listed(words)})", name=column)


_OPEN = ", ".join(f"'{state}'" for state in JobState if not state.is_final)


class Row(DeclarativeBase):
    """The base of every table: UUIDv7 keys, UTC times, constraints with predictable names."""

    metadata = sa.MetaData(
        naming_convention={
            "ix": "%(table_name)s_%(column_0_N_name)s",
            "uq": "%(table_name)s_%(column_0_N_name)s_key",
            "ck": "%(table_name)s_%(constraint_name)s_check",
            "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
            "pk": "%(table_name)s_pkey",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy reads it as declared
        datetime: sa.DateTime(timezone=True),
        str: sa.Text(),
        dict[str, Any]: JSONB(),
        list[str]: ARRAY(sa.Text()),
    }


class Owned:
    """The column of what a project owns: see `shared.project_scope`."""

    project_id: Mapped[UUID] = mapped_column(ForeignKey("project.id"))


class Project(Row):
    """Owns studies; a key sees the rows of its own project only."""

    __tablename__ = "project"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    name: Mapped[str] = mapped_column(unique=True)
    #: What pseudonyms of this project's patients and objects are made with; 256 random bits.
    pseudonym_key: Mapped[bytes] = mapped_column(default=lambda: secrets.token_bytes(32))
    created_at: Mapped[datetime] = mapped_column(server_default=_NOW)


class ApiKey(Owned, Row):
    """A bearer key, hashed at rest. The part before the secret finds the row."""

    __tablename__ = "api_key"
    __table_args__ = (sa.CheckConstraint(f"scopes <@ ARRAY[{_listed(Scope)}]", name="scopes"),)

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    project_id: Mapped[UUID] = mapped_column(ForeignKey("project.id"), index=True)
    name: Mapped[str]
    #: Public, unique: `carina_<prefix>_<secret>`.
    prefix: Mapped[str] = mapped_column(unique=True)
    #: SHA-256 of the secret's 256 random bits, so that a slow hash would add nothing.
    secret_sha256: Mapped[str]
    scopes: Mapped[list[str]]
    #: As `100/minute`; None: as the settings say.
    rate_limit: Mapped[str | None]
    #: How much the key may send in a day; None: any amount.
    files_per_day: Mapped[int | None] = mapped_column(sa.BigInteger)
    bytes_per_day: Mapped[int | None] = mapped_column(sa.BigInteger)
    created_at: Mapped[datetime] = mapped_column(server_default=_NOW)
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class ConsoleSession(Row):
    """Somebody who is signed in to the console with a key. Signing out deletes the row."""

    __tablename__ = "console_session"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    api_key_id: Mapped[UUID] = mapped_column(ForeignKey("api_key.id"))
    created_at: Mapped[datetime] = mapped_column(server_default=_NOW)


class Study(Owned, Row):
    """The images of one examination, grouped by StudyInstanceUID; a PNG or JPEG is a study of its own."""

    __tablename__ = "study"
    __table_args__ = (
        sa.UniqueConstraint("project_id", "study_instance_uid"),
        Index("study_of_project", "project_id", "id"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    study_instance_uid: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=_NOW)


class Image(Owned, Row):
    """One radiograph: the original's bytes and, once prepared, its rendition. Unique by project and digest."""

    __tablename__ = "image"
    __table_args__ = (
        sa.UniqueConstraint("project_id", "sha256"),
        # Few images have one, and a search for a flag reads the newest of these only.
        *(
            Index(f"image_{flag}", "project_id", "study_id", postgresql_where=text(f"flags @> ARRAY['{flag}'::text]"))
            for flag in Flag
        ),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    study_id: Mapped[UUID] = mapped_column(ForeignKey("study.id"), index=True)
    sop_instance_uid: Mapped[str | None]
    series_instance_uid: Mapped[str | None]
    sop_class_uid: Mapped[str | None]
    transfer_syntax_uid: Mapped[str | None]
    modality: Mapped[str | None]
    #: Whether the header says that the pixels show text, such as a name; None where it says nothing.
    burned_in_annotation: Mapped[bool | None]
    #: Hex digest of the original's bytes; its object key follows from it.
    sha256: Mapped[str]
    byte_count: Mapped[int] = mapped_column(sa.BigInteger)
    media_type: Mapped[str]
    #: Of the original, as its header says at intake and as decoded later.
    height_px: Mapped[int]
    width_px: Mapped[int]
    rendition_sha256: Mapped[str | None]
    rendition_version: Mapped[int | None]
    rendition_height_px: Mapped[int | None]
    rendition_width_px: Mapped[int | None]
    #: What decoding has shown beside the pixels, as `shared.imaging.facts` describes it; None until it is prepared.
    row_spacing_mm: Mapped[float | None]
    column_spacing_mm: Mapped[float | None]
    spacing_source: Mapped[str | None]
    grey_levels: Mapped[list[str] | None]
    flags: Mapped[list[str] | None]
    chest_scores: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    created_at: Mapped[datetime] = mapped_column(server_default=_NOW)


class Model(Row):
    """A detector: its card (classes, canvas, thresholds, anchors, digests) and where its weights lie.

    All projects share it.
    """

    __tablename__ = "model"
    __table_args__ = (
        _one_of("state", ModelState),
        Index("model_active", "state", unique=True, postgresql_where=text("state = 'active'")),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    name: Mapped[str]
    digest: Mapped[str] = mapped_column(unique=True)
    card: Mapped[dict[str, Any]]
    weights_sha256: Mapped[str]
    #: The same for the same weights in another file, name or precision; the trainer fills it in when it needs it.
    content_sha256: Mapped[str | None]
    state: Mapped[str] = mapped_column(default=ModelState.CANDIDATE)
    created_at: Mapped[datetime] = mapped_column(server_default=_NOW)
    promoted_at: Mapped[datetime | None]
    retired_at: Mapped[datetime | None]


class Submission(Owned, Row):
    """Many files that are sent as one: uploaded one by one, unpacked from archives, or read from a bucket."""

    __tablename__ = "submission"
    __table_args__ = (
        _one_of("state", SubmissionState),
        sa.CheckConstraint("priority BETWEEN 0 AND 9", name="priority"),
        Index("submission_of_project", "project_id", "id"),
        Index("submission_unfinished", "id", postgresql_where=text("state IN ('open', 'processing')")),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    api_key_id: Mapped[UUID | None] = mapped_column(ForeignKey("api_key.id"))
    state: Mapped[str] = mapped_column(default=SubmissionState.OPEN)
    priority: Mapped[int] = mapped_column(sa.SmallInteger, default=5)
    requested_model_id: Mapped[UUID | None] = mapped_column(ForeignKey("model.id"))
    #: How many files it has, which is also the next one's number.
    file_count: Mapped[int] = mapped_column(sa.BigInteger, default=0)
    #: Of `from=s3://bucket/prefix`: where the files lie, and the last key that has been listed. The end of the listing
    #: closes the submission, and clears the key, which may hold a name.
    source_bucket: Mapped[str | None]
    source_prefix: Mapped[str | None]
    listed_to: Mapped[str | None]
    #: Counts per outcome as they were last counted; those of a final submission are exact.
    tally: Mapped[dict[str, Any] | None]
    tallied_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=_NOW)
    #: When it was said that no more files come.
    closed_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class SubmissionFile(Row):
    """One file of a submission, from its announcement to its job: a row of the manifest."""

    __tablename__ = "submission_file"
    __table_args__ = (
        _one_of("state", FileState),
        sa.CheckConstraint(
            "(state = 'checking') = (lease_owner IS NOT NULL AND lease_expires_at IS NOT NULL)", name="lease"
        ),
        Index(
            "submission_file_waiting",
            sa.desc("priority"),
            "submission_id",
            "number",
            postgresql_where=text("state = 'arrived'"),
        ),
        Index("submission_file_leased", "lease_expires_at", postgresql_where=text("state = 'checking'")),
        Index(
            "submission_file_open",
            "submission_id",
            postgresql_where=text("state IN ('expected', 'arrived', 'checking')"),
        ),
        Index("submission_file_duplicate", "job_id", "submission_id", postgresql_where=text("state = 'duplicate'")),
        Index(
            "submission_file_entry",
            "submission_id",
            "archive_number",
            "entry_number",
            unique=True,
            postgresql_where=text("archive_number IS NOT NULL"),
        ),
        {"postgresql_with": {"autovacuum_vacuum_scale_factor": "0.01", "fillfactor": "80"}},
    )

    submission_id: Mapped[UUID] = mapped_column(ForeignKey("submission.id"), primary_key=True)
    #: From 0, in the order of announcement.
    number: Mapped[int] = mapped_column(sa.BigInteger, primary_key=True)
    #: What the client calls it; not kept where originals are de-identified.
    name: Mapped[str | None]
    #: As announced; both are checked against what arrives.
    byte_count: Mapped[int | None] = mapped_column(sa.BigInteger)
    sha256: Mapped[str | None]
    state: Mapped[str] = mapped_column(default=FileState.EXPECTED)
    #: The submission's, here for the order of the claim.
    priority: Mapped[int] = mapped_column(sa.SmallInteger, default=5)
    #: Of an entry of an archive: the archive's number and the entry's place in it.
    archive_number: Mapped[int | None] = mapped_column(sa.BigInteger)
    entry_number: Mapped[int | None]
    #: Of a file from a bucket: its key there, until it is taken in or rejected.
    source_key: Mapped[str | None]
    #: Of a large upload: the object store's name for it.
    upload_id: Mapped[str | None]
    image_id: Mapped[UUID | None] = mapped_column(ForeignKey("image.id"))
    job_id: Mapped[UUID | None] = mapped_column(ForeignKey("job.id"))
    code: Mapped[str | None]
    reason: Mapped[str | None]
    #: Claims so far; with `lease_owner` the fence of every change.
    attempt: Mapped[int] = mapped_column(default=0)
    available_at: Mapped[datetime] = mapped_column(server_default=_NOW)
    lease_owner: Mapped[str | None]
    lease_expires_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=_NOW)
    finished_at: Mapped[datetime | None]


class Job(Owned, Row):
    """One image under one model. The claim's order is priority, then age, which the key holds."""

    __tablename__ = "job"
    __table_args__ = (
        _one_of("state", JobState),
        sa.CheckConstraint("priority BETWEEN 0 AND 9", name="priority"),
        sa.CheckConstraint(
            "(state IN ('preparing', 'detecting')) = (lease_owner IS NOT NULL AND lease_expires_at IS NOT NULL)",
            name="lease",
        ),
        Index("job_waiting", "state", sa.desc("priority"), "id", postgresql_where=text("state IN ('queued', 'ready')")),
        Index("job_leased", "lease_expires_at", postgresql_where=text("state IN ('preparing', 'detecting')")),
        Index("job_open", "submission_id", postgresql_where=text(f"submission_id IS NOT NULL AND state IN ({_OPEN})")),
        Index("job_counted_on", "id", postgresql_where=text(f"counted_on AND state IN ({_OPEN})")),
        Index("job_result", "image_id", "model_id", unique=True, postgresql_where=text("state = 'succeeded'")),
        Index("job_of_image", "image_id", "id"),
        # These two are read backwards: the newest studies with a job like that.
        Index("job_by_state", "project_id", "state", "priority", "study_id"),
        Index("job_of_submission", "submission_id", "study_id", postgresql_where=text("submission_id IS NOT NULL")),
        Index("job_finished", "finished_at", postgresql_where=text("finished_at IS NOT NULL")),
        Index("job_unfit", "project_id", "finished_at", postgresql_where=text("state IN ('rejected', 'failed')")),
        # Finished rows pile up behind a short queue: clean the queue's index long before a fifth of the table is dead.
        {"postgresql_with": {"autovacuum_vacuum_scale_factor": "0.01", "fillfactor": "80"}},
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    image_id: Mapped[UUID] = mapped_column(ForeignKey("image.id"))
    #: The image's, here for the order of a search.
    study_id: Mapped[UUID] = mapped_column(ForeignKey("study.id"))
    #: The bulk submission that it belongs to, if it does.
    submission_id: Mapped[UUID | None] = mapped_column(ForeignKey("submission.id"))
    #: The model that the request named, if it did.
    requested_model_id: Mapped[UUID | None] = mapped_column(ForeignKey("model.id"))
    #: The model of this attempt: the requested one, else the one active at the claim.
    model_id: Mapped[UUID | None] = mapped_column(ForeignKey("model.id"))
    state: Mapped[str] = mapped_column(default=JobState.QUEUED)
    priority: Mapped[int] = mapped_column(sa.SmallInteger, default=5)
    #: Claims so far in this stage; with `lease_owner` the fence of every change.
    attempt: Mapped[int] = mapped_column(default=0)
    #: Whether the next claim takes this job in a batch of its own, because it may have brought one down.
    alone: Mapped[bool] = mapped_column(default=False)
    #: Whether another request has sent the same image in since: its submission waits for the job, which outlives the
    #: cancelling of its own.
    counted_on: Mapped[bool] = mapped_column(default=False, server_default=sa.false())
    #: Not claimed before this time.
    available_at: Mapped[datetime] = mapped_column(server_default=_NOW)
    lease_owner: Mapped[str | None]
    lease_expires_at: Mapped[datetime | None]
    #: Why the job is rejected or failed, or why its last attempt was: a stable code and a sentence.
    code: Mapped[str | None]
    reason: Mapped[str | None]
    #: Of the Carina that found what it found.
    code_version: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=_NOW)
    ready_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class Detection(Row):
    """One box that a model drew, in the pixel coordinates of the original image. Rank 0 has the highest score."""

    __tablename__ = "detection"

    job_id: Mapped[UUID] = mapped_column(ForeignKey("job.id"), primary_key=True)
    rank: Mapped[int] = mapped_column(sa.SmallInteger, primary_key=True)
    model_id: Mapped[UUID] = mapped_column(ForeignKey("model.id"))
    class_id: Mapped[int]
    class_name: Mapped[str]
    score: Mapped[float]
    x_min_px: Mapped[float]
    y_min_px: Mapped[float]
    x_max_px: Mapped[float]
    y_max_px: Mapped[float]


class ReviewEvent(Owned, Row):
    """One thing that a reader said of a job's findings. Rows are only ever added: see `shared.reviews.fold`."""

    __tablename__ = "review_event"
    __table_args__ = (
        _one_of("action", ReviewAction),
        sa.CheckConstraint("(action IN ('undo', 'redo')) = (undoes IS NOT NULL)", name="undoes"),
        sa.CheckConstraint("(action = 'complete') = (min_score IS NOT NULL)", name="min_score"),
        sa.ForeignKeyConstraint(("job_id", "rank"), ("detection.job_id", "detection.rank")),
        sa.ForeignKeyConstraint(("job_id", "drawn"), ("review_event.job_id", "review_event.number")),
        sa.ForeignKeyConstraint(("job_id", "undoes"), ("review_event.job_id", "review_event.number")),
        Index("review_event_of_image", "image_id", "created_at"),
        Index("review_event_of_project", "project_id", "job_id"),
    )

    job_id: Mapped[UUID] = mapped_column(ForeignKey("job.id"), primary_key=True)
    #: From 1, in the order in which they were said.
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    image_id: Mapped[UUID] = mapped_column(ForeignKey("image.id"))
    model_id: Mapped[UUID] = mapped_column(ForeignKey("model.id"))
    api_key_id: Mapped[UUID] = mapped_column(ForeignKey("api_key.id"))
    #: What the key was called then.
    reader: Mapped[str]
    action: Mapped[str]
    #: What it is about: a detection, a box that the event of this number drew, or, for both None, the whole image.
    rank: Mapped[int | None] = mapped_column(sa.SmallInteger)
    drawn: Mapped[int | None]
    #: Of an undo: the event that counts no more. Of a redo: the undo.
    undoes: Mapped[int | None]
    #: Of what was drawn or changed: what it is from now on, in pixels of the original image.
    class_id: Mapped[int | None]
    class_name: Mapped[str | None]
    x_min_px: Mapped[float | None]
    y_min_px: Mapped[float | None]
    x_max_px: Mapped[float | None]
    y_max_px: Mapped[float | None]
    #: Of `complete`: findings with a lower score were not looked at, and count as rejected.
    min_score: Mapped[float | None]
    created_at: Mapped[datetime] = mapped_column(server_default=_NOW)


class TopScore(Owned, Row):
    """The highest score that a job gave to a class: what studies are found by; see `shared.results`."""

    __tablename__ = "top_score"
    __table_args__ = (Index("top_score_of_class", "project_id", "class_name", "tenth", "study_id", "score"),)

    # The other ids are the job's, and so need no foreign keys, which would cost each batch as much as its detections.
    study_id: Mapped[UUID] = mapped_column(primary_key=True)
    class_name: Mapped[str] = mapped_column(primary_key=True)
    job_id: Mapped[UUID] = mapped_column(ForeignKey("job.id"), primary_key=True)
    project_id: Mapped[UUID] = mapped_column()
    image_id: Mapped[UUID]
    score: Mapped[float]
    #: The score's first decimal, so that the newest studies above a score lie in at most eleven runs of the index.
    tenth: Mapped[int] = mapped_column(sa.SmallInteger)


class Worker(Row):
    """A worker process: its heartbeat and what it has done, which `/metrics` sums up."""

    __tablename__ = "worker"
    __table_args__ = (_one_of("stage", Stage),)

    #: The `lease_owner` of its jobs: unique to the process.
    id: Mapped[str] = mapped_column(primary_key=True)
    stage: Mapped[str]
    device: Mapped[str | None]
    model_id: Mapped[UUID | None] = mapped_column(ForeignKey("model.id"))
    started_at: Mapped[datetime] = mapped_column(server_default=_NOW)
    seen_at: Mapped[datetime] = mapped_column(server_default=_NOW)
    stopped_at: Mapped[datetime | None]
    batches: Mapped[int] = mapped_column(sa.BigInteger, default=0)
    images: Mapped[int] = mapped_column(sa.BigInteger, default=0)
    step_s: Mapped[float] = mapped_column(default=0.0)
    expired_leases: Mapped[int] = mapped_column(sa.BigInteger, default=0)


class QueueSample(Row):
    """What the queue was like at a moment: see `shared.queue.samples`."""

    __tablename__ = "queue_sample"

    #: The beginning of the interval in which it was taken, of which there is one sample.
    at: Mapped[datetime] = mapped_column(primary_key=True)
    queued: Mapped[int] = mapped_column(sa.BigInteger)
    preparing: Mapped[int] = mapped_column(sa.BigInteger)
    ready: Mapped[int] = mapped_column(sa.BigInteger)
    detecting: Mapped[int] = mapped_column(sa.BigInteger)
    #: How long the oldest waiting job had waited.
    oldest_waiting_s: Mapped[float]
    #: How many jobs came to which end, and in how many seconds: since the sample before.
    succeeded: Mapped[int] = mapped_column(sa.BigInteger)
    rejected: Mapped[int] = mapped_column(sa.BigInteger)
    failed: Mapped[int] = mapped_column(sa.BigInteger)
    cancelled: Mapped[int] = mapped_column(sa.BigInteger)
    elapsed_s: Mapped[float]
    #: What all detect workers have done since there is a queue.
    batches: Mapped[int] = mapped_column(sa.BigInteger)
    images: Mapped[int] = mapped_column(sa.BigInteger)
    step_s: Mapped[float]


class IdempotencyKey(Row):
    """What a request with an `Idempotency-Key` was answered, so that the same one gets the same answer."""

    __tablename__ = "idempotency_key"
    __table_args__ = (sa.UniqueConstraint("api_key_id", "key"), Index("idempotency_key_age", "created_at"))

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    api_key_id: Mapped[UUID] = mapped_column(ForeignKey("api_key.id"))
    key: Mapped[str]
    #: Digest of the route, its parameters and the body; known once the body has been read.
    fingerprint: Mapped[str | None]
    #: The answer; None while the first request is under way.
    status: Mapped[int | None]
    content_type: Mapped[str | None]
    body: Mapped[str | None]
    #: Until when the first request counts as under way.
    locked_until: Mapped[datetime]
    created_at: Mapped[datetime] = mapped_column(server_default=_NOW)


class Webhook(Owned, Row):
    """Where a key wants to be told of events."""

    __tablename__ = "webhook"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    project_id: Mapped[UUID] = mapped_column(ForeignKey("project.id"), index=True)
    api_key_id: Mapped[UUID] = mapped_column(ForeignKey("api_key.id"))
    url: Mapped[str]
    #: Signs the messages; shown once.
    secret: Mapped[str]
    events: Mapped[list[str]]
    enabled: Mapped[bool] = mapped_column(default=True)
    created_at: Mapped[datetime] = mapped_column(server_default=_NOW)


class WebhookDelivery(Row):
    """One message to a webhook: what it says, and how often it was tried."""

    __tablename__ = "webhook_delivery"
    __table_args__ = (
        _one_of("state", DeliveryState),
        sa.CheckConstraint(
            "(state = 'sending') = (lease_owner IS NOT NULL AND lease_expires_at IS NOT NULL)", name="lease"
        ),
        Index("webhook_delivery_waiting", "webhook_id", "available_at", postgresql_where=text("state = 'pending'")),
        Index("webhook_delivery_leased", "lease_expires_at", postgresql_where=text("state = 'sending'")),
        Index("webhook_delivery_of", "webhook_id", "id"),
        Index("webhook_delivery_dead", "webhook_id", "id", postgresql_where=text("state = 'dead'")),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    webhook_id: Mapped[UUID] = mapped_column(ForeignKey("webhook.id", ondelete="CASCADE"))
    event: Mapped[str]
    #: Ids, states and counts; never a patient's data.
    payload: Mapped[dict[str, Any]]
    state: Mapped[str] = mapped_column(default=DeliveryState.PENDING)
    attempt: Mapped[int] = mapped_column(default=0)
    available_at: Mapped[datetime] = mapped_column(server_default=_NOW)
    lease_owner: Mapped[str | None]
    lease_expires_at: Mapped[datetime | None]
    #: Of the last try: the receiver's status, or a stable code and a sentence.
    response_status: Mapped[int | None]
    code: Mapped[str | None]
    reason: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=_NOW)
    finished_at: Mapped[datetime | None]


class AuditEvent(Row):
    """Who did what, and who saw whose pixels: ids only, never a patient's data."""

    __tablename__ = "audit_event"
    __table_args__ = (Index("audit_event_of_project", "project_id", "id"),)

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    project_id: Mapped[UUID | None] = mapped_column(ForeignKey("project.id"))
    api_key_id: Mapped[UUID | None] = mapped_column(ForeignKey("api_key.id"))
    #: Who acted where there is no key: an application entity's title, or `cli`.
    actor: Mapped[str | None]
    #: As `studies.submit` or `images.rendition`.
    action: Mapped[str]
    #: What was acted upon, as the route names it: `{"study_id": ...}`.
    subject: Mapped[dict[str, Any]]
    #: Of the answer.
    status: Mapped[int | None]
    remote_address: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=_NOW)


class Erasure(Row):
    """What is left of a study that was erased: objects, and marks of datasets. The row goes with the last of it."""

    __tablename__ = "erasure"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    #: Both are None where a worker has put an object for a study that was gone by then.
    project_id: Mapped[UUID | None] = mapped_column(ForeignKey("project.id"))
    study_id: Mapped[UUID | None]
    #: Of the originals.
    sha256s: Mapped[list[str]]
    #: Of the objects that go, unless another image refers to them.
    keys: Mapped[list[str]]
    #: The datasets that are marked already.
    dataset_ids: Mapped[list[UUID]] = mapped_column(ARRAY(sa.Uuid()), default=list)
    created_at: Mapped[datetime] = mapped_column(server_default=_NOW)


class ErasedObject(Row):
    """Says for a while that an object may be gone whose writer has no row yet: see `shared.erasure`."""

    __tablename__ = "erased_object"

    #: Of the object's key, which would name an original.
    key_sha256: Mapped[str] = mapped_column(primary_key=True)
    erased_at: Mapped[datetime] = mapped_column(server_default=_NOW)


class Usage(Row):
    """How much an API key has sent on a day, in UTC: what quotas are compared with."""

    __tablename__ = "usage"
    __table_args__ = ({"postgresql_with": {"fillfactor": "50"}},)

    api_key_id: Mapped[UUID] = mapped_column(ForeignKey("api_key.id"), primary_key=True)
    day: Mapped[date] = mapped_column(primary_key=True)
    files: Mapped[int] = mapped_column(sa.BigInteger)
    bytes: Mapped[int] = mapped_column(sa.BigInteger)


class Rendition(Row):
    """The rendition of an original that a dataset was made from, so that no import makes it twice."""

    __tablename__ = "rendition"

    #: Of the original's bytes.
    sha256: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True)
    #: The longest side that was asked for.
    rendition_px: Mapped[int] = mapped_column(primary_key=True)
    rendition_sha256: Mapped[str]
    rendition_height_px: Mapped[int]
    rendition_width_px: Mapped[int]
    height_px: Mapped[int]
    width_px: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(server_default=_NOW)


class Task(Owned, Row):
    """The columns of what the trainer leases: see `shared.tasks`."""

    __abstract__ = True

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    state: Mapped[str] = mapped_column(default=TaskState.QUEUED)
    #: Claims so far; with `lease_owner` the fence of every change.
    attempt: Mapped[int] = mapped_column(default=0)
    #: Attempts that ended without a word since the task last got on.
    losses: Mapped[int] = mapped_column(default=0)
    #: Not claimed before this time.
    available_at: Mapped[datetime] = mapped_column(server_default=_NOW)
    lease_owner: Mapped[str | None]
    lease_expires_at: Mapped[datetime | None]
    #: How far it is, for whoever waits: its keys depend on the kind of task.
    progress: Mapped[dict[str, Any]] = mapped_column(default=dict)
    #: The last lines that its processes wrote.
    log_tail: Mapped[str] = mapped_column(default="")
    #: Why it failed, or why its last attempt did: a stable code and a sentence.
    code: Mapped[str | None]
    reason: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=_NOW)
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


def _task_args(name: str) -> tuple[Any, ...]:
    waiting = text("state IN ('queued', 'interrupted')")
    return (
        _one_of("state", TaskState),
        sa.CheckConstraint(
            "(state = 'running') = (lease_owner IS NOT NULL AND lease_expires_at IS NOT NULL)", name="lease"
        ),
        Index(f"{name}_waiting", "id", postgresql_where=waiting),
        Index(f"{name}_of_project", "project_id", "id"),
    )


class Dataset(Task):
    """An import, and once it has succeeded an immutable dataset: a COCO document in the object store."""

    __tablename__ = "dataset"
    __table_args__ = (*_task_args("dataset"), Index("dataset_named", "project_id", "name", "id"))

    #: Datasets of one name in a project are versions of it; the newest one that succeeded is the latest.
    name: Mapped[str]
    #: What it is made from and how: format, files, consensus, splits.
    source: Mapped[dict[str, Any]]
    #: SHA-256 of the document, from which its object key follows.
    digest: Mapped[str | None]
    rendition_version: Mapped[int | None]
    image_count: Mapped[int | None]
    box_count: Mapped[int | None]
    failure_count: Mapped[int | None]
    #: Counts per split, class, reader and box size; failures by code.
    summary: Mapped[dict[str, Any] | None]
    #: SHA-256 of the list of images that failed, as JSON lines.
    failures_sha256: Mapped[str | None]
    #: Images whose study was erased since: nothing can be trained on the dataset any more.
    erased_count: Mapped[int] = mapped_column(default=0, server_default="0")


class Schedule(Owned, Row):
    """When to train again, on what, and what has to hold for the result to become active."""

    __tablename__ = "schedule"
    __table_args__ = (
        _one_of("overlap", Overlap),
        Index("schedule_named", "project_id", "name", unique=True),
        Index("schedule_due", "next_at", postgresql_where=text("enabled")),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    name: Mapped[str]
    #: Five fields, in local time of `time_zone`, an IANA name.
    cron: Mapped[str]
    time_zone: Mapped[str]
    #: The latest dataset of this name is trained on.
    dataset_name: Mapped[str]
    config: Mapped[dict[str, Any]]
    gate: Mapped[dict[str, Any] | None]
    overlap: Mapped[str] = mapped_column(default=Overlap.SKIP)
    #: Whether to leave a time out when neither data nor config has changed since the last run.
    skip_unchanged: Mapped[bool] = mapped_column(default=True)
    enabled: Mapped[bool] = mapped_column(default=True)
    next_at: Mapped[datetime | None]
    last_at: Mapped[datetime | None]
    #: What became of the last time, in one sentence.
    last_outcome: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=_NOW)


class TrainingRun(Task):
    """One training: a config and a dataset, its checkpoint while it lasts, its model at the end."""

    __tablename__ = "training_run"
    __table_args__ = (*_task_args("training_run"), sa.UniqueConstraint("schedule_id", "due_at"))

    name: Mapped[str]
    dataset_id: Mapped[UUID] = mapped_column(ForeignKey("dataset.id"))
    config: Mapped[dict[str, Any]]
    config_digest: Mapped[str]
    #: What is asked of the model before it becomes active; None: nobody decides.
    gate: Mapped[dict[str, Any] | None]
    initial_model_id: Mapped[UUID | None] = mapped_column(ForeignKey("model.id"))
    #: What to know about this choice of data and weights, in sentences.
    notes: Mapped[list[str]] = mapped_column(JSONB, default=list, server_default="[]")
    schedule_id: Mapped[UUID | None] = mapped_column(ForeignKey("schedule.id", ondelete="SET NULL"))
    #: The time that the schedule meant; a run that started later was late.
    due_at: Mapped[datetime | None]
    #: The last checkpoint: the SHA-256 of its bytes and the steps that were done.
    checkpoint_sha256: Mapped[str | None]
    checkpoint_steps: Mapped[int | None]
    #: SHA-256 of TensorBoard's event file of each attempt.
    events: Mapped[dict[str, Any]] = mapped_column(default=dict)
    model_id: Mapped[UUID | None] = mapped_column(ForeignKey("model.id"))


class TrainingPoint(Row):
    """A point of a training's curves."""

    __tablename__ = "training_point"

    training_run_id: Mapped[UUID] = mapped_column(ForeignKey("training_run.id", ondelete="CASCADE"), primary_key=True)
    #: Steps that were done, over all epochs.
    step: Mapped[int] = mapped_column(primary_key=True)
    #: Epochs that were done, with a fraction.
    epoch: Mapped[float]
    #: Means over the steps since the point before, by the name of the figure.
    values: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(server_default=_NOW)


class Evaluation(Task):
    """One model on one split: its metrics, its detections and its report."""

    __tablename__ = "evaluation"
    __table_args__ = (*_task_args("evaluation"), Index("evaluation_of", "model_id", "dataset_id"))

    model_id: Mapped[UUID] = mapped_column(ForeignKey("model.id"))
    dataset_id: Mapped[UUID] = mapped_column(ForeignKey("dataset.id"))
    config: Mapped[dict[str, Any]]
    metrics: Mapped[dict[str, Any] | None]
    detections_sha256: Mapped[str | None]
    report_sha256: Mapped[str | None]


class GateDecision(Task):
    """Whether a candidate takes the active model's place, with the numbers behind it."""

    __tablename__ = "gate_decision"
    __table_args__ = _task_args("gate_decision")

    candidate_model_id: Mapped[UUID] = mapped_column(ForeignKey("model.id"))
    #: The model that was active; None where there was none.
    baseline_model_id: Mapped[UUID | None] = mapped_column(ForeignKey("model.id"))
    training_run_id: Mapped[UUID | None] = mapped_column(ForeignKey("training_run.id"))
    config: Mapped[dict[str, Any]]
    candidate_evaluation_id: Mapped[UUID | None] = mapped_column(ForeignKey("evaluation.id"))
    baseline_evaluation_id: Mapped[UUID | None] = mapped_column(ForeignKey("evaluation.id"))
    promoted: Mapped[bool | None]
    #: The gain, its interval and the classes' changes.
    figures: Mapped[dict[str, Any] | None]
    #: The same as a paragraph, which the report repeats.
    explanation: Mapped[str | None]
