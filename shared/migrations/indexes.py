"""Changes existing tables while other processes read and write them.

Each change commits on its own. An interrupted migration starts again from its beginning, so these changes come first in
a migration, or everything before them must be safe to repeat.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from alembic import op

from shared.errors import DatabaseUnavailable

_IS_VALID = sa.text("SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(:name)")
_IS_VALIDATED = sa.text(
    "SELECT convalidated FROM pg_constraint WHERE conrelid = to_regclass(:table) AND conname = :name"
)


@contextmanager
def _committing() -> Iterator[None]:
    """Alembic's own block, which hides an outage behind an error about its transaction."""
    outage: DatabaseUnavailable | None = None
    try:
        with op.get_context().autocommit_block():
            try:
                yield
            except DatabaseUnavailable as exc:
                outage = exc
                raise
    except sa.exc.PendingRollbackError:
        if outage is not None:
            raise outage from outage.__cause__
        raise


def create_index(
    name: str, table: str, columns: Sequence[str | sa.TextClause | sa.ColumnElement[Any]], **options: Any
) -> None:
    """Build an index without holding up those who write; the half-built one of an earlier try is built anew."""
    with _committing():
        is_valid = op.get_bind().scalar(_IS_VALID, {"name": name})
        if is_valid is False:
            op.drop_index(name, table, postgresql_concurrently=True)
        if not is_valid:
            op.create_index(name, table, columns, postgresql_concurrently=True, **options)


def create_foreign_key(name: str, table: str, referred: str, column: str) -> None:
    """Add a foreign key; the rows that are there are checked without holding up those who write.

    Adding it locks both tables for a moment: it belongs into the migration's transaction, whose waits are limited.
    """
    is_validated = op.get_bind().scalar(_IS_VALIDATED, {"table": table, "name": name})
    if is_validated is None:
        op.create_foreign_key(name, table, referred, [column], ["id"], postgresql_not_valid=True)
    if not is_validated:
        with _committing():
            op.execute(f"ALTER TABLE {table} VALIDATE CONSTRAINT {name}")


def fill(statement: str) -> None:
    """Run an UPDATE of a bounded number of rows until it finds none."""
    with _committing():
        while op.get_bind().execute(sa.text(statement)).rowcount:
            pass
