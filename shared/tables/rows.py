"""The base class of all tables, and columns and constraints that tables share."""

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import ForeignKey
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from shared.vocabulary.states import LeasedState, Phase

#: The current time by the database's clock, for example when a row is created.
NOW = sa.func.now()

#: Settings of a table whose rows change several times and then stay: vacuum it long before 20% are dead rows, and leave
#: room in each page for the next version of a row.
CHANGED_OFTEN = {"postgresql_with": {"autovacuum_vacuum_scale_factor": "0.01", "fillfactor": "80"}}
#: Settings of a table that only grows: vacuum it in small steps, instead of a fifth of it at a time.
APPENDED = {
    "postgresql_with": {"autovacuum_analyze_scale_factor": "0.02", "autovacuum_vacuum_insert_scale_factor": "0.02"}
}


def listed(words: Iterable[StrEnum]) -> str:
    """Return the words as a list in SQL."""
    return ", ".join(f"'{word}'" for word in words)


def one_of(column: str, words: type[StrEnum]) -> sa.CheckConstraint:
    """Return a CHECK that the column has one of the words."""
    return sa.CheckConstraint(f"{column} IN ({listed(words)})", name=column)


def leased_by(states: type[LeasedState]) -> tuple[sa.CheckConstraint, ...]:
    """Return the CHECKs of a leased table: valid states, and a lease exactly in the leased states."""
    leased = listed(states.in_phase(Phase.LEASED))
    lease = f"(state IN ({leased})) = (lease_owner IS NOT NULL AND lease_expires_at IS NOT NULL)"
    return one_of("state", states), sa.CheckConstraint(lease, name="lease")


class Row(DeclarativeBase):
    """The base class of all tables: UUIDv7 keys, UTC times, constraints with predictable names."""

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


class Leased:
    """The columns of rows that workers lease: see `shared.leases`. Each table defines its own primary key."""

    #: The states of the table.
    states: ClassVar[type[LeasedState]]

    state: Mapped[str]
    #: The number of claims so far. With `lease_owner`, the fence of every change.
    attempt: Mapped[int] = mapped_column(default=0)
    #: Not claimed before this time.
    available_at: Mapped[datetime] = mapped_column(server_default=NOW)
    lease_owner: Mapped[str | None]
    lease_expires_at: Mapped[datetime | None]
    #: The reason why the row was rejected or failed, or why its last attempt failed: a stable code and a sentence.
    code: Mapped[str | None]
    reason: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    finished_at: Mapped[datetime | None]


class Owned:
    """The project column of rows that belong to a project: see `shared.database.project_scope`."""

    project_id: Mapped[UUID] = mapped_column(ForeignKey("project.id"))
