"""Projects, their keys, console sessions, and what keys did."""

import secrets
from datetime import date, datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from shared.ids import new_id
from shared.tables.rows import NOW, Owned, Row, listed
from shared.vocabulary.states import Scope


class Project(Row):
    """Owns studies; a key sees the rows of its own project only."""

    __tablename__ = "project"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    name: Mapped[str] = mapped_column(unique=True)
    #: What pseudonyms of this project's patients and objects are made with; 256 random bits.
    pseudonym_key: Mapped[bytes] = mapped_column(default=lambda: secrets.token_bytes(32))
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)


class ApiKey(Owned, Row):
    """A bearer key, hashed at rest. The part before the secret finds the row."""

    __tablename__ = "api_key"
    __table_args__ = (sa.CheckConstraint(f"scopes <@ ARRAY[{listed(Scope)}]", name="scopes"),)

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
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class ConsoleSession(Row):
    """Somebody who is signed in to the console with a key. Signing out deletes the row."""

    __tablename__ = "console_session"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    api_key_id: Mapped[UUID] = mapped_column(ForeignKey("api_key.id"))
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)


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
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)


class Usage(Row):
    """How much an API key has sent on a day, in UTC: what quotas are compared with."""

    __tablename__ = "usage"
    __table_args__ = ({"postgresql_with": {"fillfactor": "50"}},)

    api_key_id: Mapped[UUID] = mapped_column(ForeignKey("api_key.id"), primary_key=True)
    day: Mapped[date] = mapped_column(primary_key=True)
    files: Mapped[int] = mapped_column(sa.BigInteger)
    bytes: Mapped[int] = mapped_column(sa.BigInteger)


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
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
