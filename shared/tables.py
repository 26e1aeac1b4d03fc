"""The rows that Carina keeps. PostgreSQL is the truth; everything else can be made again from these and the objects."""

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import ForeignKey, Index, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from shared.ids import new_id
from shared.queue.states import JobState, ModelState, Scope, Stage

_NOW = sa.func.now()


def _listed(words: type[StrEnum]) -> str:
    return ", ".join(f"'{word}'" for word in words)


def _one_of(column: str, words: type[StrEnum]) -> sa.CheckConstraint:
    return sa.CheckConstraint(f"{column} IN ({_listed(words)})", name=column)


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


class Project(Row):
    """Owns studies; a key sees the rows of its own project only."""

    __tablename__ = "project"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    name: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[datetime] = mapped_column(server_default=_NOW)


class ApiKey(Row):
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
    created_at: Mapped[datetime] = mapped_column(server_default=_NOW)
    revoked_at: Mapped[datetime | None]


class Study(Row):
    """The images of one examination, grouped by StudyInstanceUID; a PNG or JPEG is a study of its own."""

    __tablename__ = "study"
    __table_args__ = (sa.UniqueConstraint("project_id", "study_instance_uid"),)

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    project_id: Mapped[UUID] = mapped_column(ForeignKey("project.id"))
    study_instance_uid: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=_NOW)


class Image(Row):
    """One radiograph: the original's bytes and, once prepared, its rendition. Unique by project and digest."""

    __tablename__ = "image"
    __table_args__ = (sa.UniqueConstraint("project_id", "sha256"),)

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    project_id: Mapped[UUID] = mapped_column(ForeignKey("project.id"))
    study_id: Mapped[UUID] = mapped_column(ForeignKey("study.id"), index=True)
    sop_instance_uid: Mapped[str | None]
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
    created_at: Mapped[datetime] = mapped_column(server_default=_NOW)


class Model(Row):
    """A detector: its card (classes, canvas, thresholds, anchors, digests) and where its weights lie."""

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
    state: Mapped[str] = mapped_column(default=ModelState.CANDIDATE)
    created_at: Mapped[datetime] = mapped_column(server_default=_NOW)
    promoted_at: Mapped[datetime | None]
    retired_at: Mapped[datetime | None]


class Job(Row):
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
        Index("job_result", "image_id", "model_id", unique=True, postgresql_where=text("state = 'succeeded'")),
        # Finished rows pile up behind a short queue: clean the queue's index long before a fifth of the table is dead.
        {"postgresql_with": {"autovacuum_vacuum_scale_factor": "0.01", "fillfactor": "80"}},
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    project_id: Mapped[UUID] = mapped_column(ForeignKey("project.id"))
    image_id: Mapped[UUID] = mapped_column(ForeignKey("image.id"), index=True)
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
