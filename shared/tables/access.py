"""Projects, API keys, console sessions, usage and the audit."""

import secrets
from datetime import date, datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from shared.ids import new_id
from shared.tables.rows import APPENDED, NOW, Owned, Row, listed
from shared.vocabulary.states import Scope


class Project(Row):
    """The owner of studies and keys. A key can access only the rows of its own project."""

    __tablename__ = "project"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    name: Mapped[str] = mapped_column(unique=True)
    #: Key for the pseudonyms of this project's patients and objects; 256 random bits.
    pseudonym_key: Mapped[bytes] = mapped_column(default=lambda: secrets.token_bytes(32))
    #: Days for which data is kept, by `Retained`, where the project differs from the settings; 0: forever.
    retention: Mapped[dict[str, Any]] = mapped_column(default=dict, server_default="{}")
    #: The last count of stored images and bytes: see `shared.erasure.stored`.
    stored: Mapped[dict[str, Any]] = mapped_column(default=dict, server_default="{}")
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)


class ApiKey(Owned, Row):
    """A bearer key. Only the hash of its secret is stored; the prefix identifies the row."""

    __tablename__ = "api_key"
    __table_args__ = (sa.CheckConstraint(f"scopes <@ ARRAY[{listed(Scope)}]", name="scopes"),)

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    project_id: Mapped[UUID] = mapped_column(ForeignKey("project.id"), index=True)
    name: Mapped[str]
    #: Public, unique: `carina_<prefix>_<secret>`.
    prefix: Mapped[str] = mapped_column(unique=True)
    #: SHA-256 of the secret. The secret has 256 random bits, so a slow hash is not needed.
    secret_sha256: Mapped[str]
    scopes: Mapped[list[str]]
    #: For example `100/minute`; None: the rate limit of the settings.
    rate_limit: Mapped[str | None]
    #: The daily quota of the key; None: unlimited.
    files_per_day: Mapped[int | None] = mapped_column(sa.BigInteger)
    bytes_per_day: Mapped[int | None] = mapped_column(sa.BigInteger)
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class ConsoleSession(Row):
    """A session in the console, signed in with a key. Signing out deletes the row."""

    __tablename__ = "console_session"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    api_key_id: Mapped[UUID] = mapped_column(ForeignKey("api_key.id"))
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)


class IdempotencyKey(Row):
    """The answer to a request with an `Idempotency-Key`, so that a repeated request gets the same answer."""

    __tablename__ = "idempotency_key"
    __table_args__ = (sa.UniqueConstraint("api_key_id", "key"), Index("idempotency_key_age", "created_at"))

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    api_key_id: Mapped[UUID] = mapped_column(ForeignKey("api_key.id"))
    key: Mapped[str]
    #: Digest of the route, its parameters and the body; None until the body has been read.
    fingerprint: Mapped[str | None]
    #: The answer; None while the first request is in progress.
    status: Mapped[int | None]
    content_type: Mapped[str | None]
    body: Mapped[str | None]
    #: The time until which the first request counts as in progress.
    locked_until: Mapped[datetime]
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)


class Usage(Row):
    """How much an API key has sent on a day in UTC, for its quota."""

    __tablename__ = "usage"
    __table_args__ = ({"postgresql_with": {"fillfactor": "50"}},)

    api_key_id: Mapped[UUID] = mapped_column(ForeignKey("api_key.id"), primary_key=True)
    day: Mapped[date] = mapped_column(primary_key=True)
    files: Mapped[int] = mapped_column(sa.BigInteger)
    bytes: Mapped[int] = mapped_column(sa.BigInteger)


class AuditEvent(Row):
    """An action of a key or another actor, or access to images. Contains ids only, never a patient's data."""

    __tablename__ = "audit_event"
    __table_args__ = (Index("audit_event_of_project", "project_id", "id"), APPENDED)

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    project_id: Mapped[UUID | None] = mapped_column(ForeignKey("project.id"))
    api_key_id: Mapped[UUID | None] = mapped_column(ForeignKey("api_key.id"))
    #: The actor if there is no key: an application entity title, or `cli`.
    actor: Mapped[str | None]
    #: For example `studies.submit` or `images.rendition`.
    action: Mapped[str]
    #: The objects of the action, with the names of the route's parameters: `{"study_id": ...}`.
    subject: Mapped[dict[str, Any]]
    #: The HTTP status of the answer.
    status: Mapped[int | None]
    remote_address: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
