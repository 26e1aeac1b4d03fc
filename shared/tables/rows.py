"""The base of every table, and what tables have in common."""

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import ForeignKey
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

#: When a row was made, by the database's clock.
NOW = sa.func.now()


def listed(words: type[StrEnum]) -> str:
    """Words as SQL takes them in a list."""
    return ", ".join(f"'{word}'" for word in words)


def one_of(column: str, words: type[StrEnum]) -> sa.CheckConstraint:
    """A CHECK that the column holds one of the words."""
    return sa.CheckConstraint(f"{column} IN ({listed(words)})", name=column)


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
    """The column of what a project owns: see `shared.database.project_scope`."""

    project_id: Mapped[UUID] = mapped_column(ForeignKey("project.id"))
