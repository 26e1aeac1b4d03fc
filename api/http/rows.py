"""Rows of the request's project: one by its id, and many by pages.

Sessions of requests see the rows of their project only, so a query needs no condition on it.
"""

from collections.abc import Sequence
from typing import TypeVar
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Session

from api.contract.paging import PageQuery
from shared.errors import NotFound
from shared.tables import AuditEvent, Row, Submission, Task, TrainingRun, WebhookDelivery

Found = TypeVar("Found", bound=Row)
Paged = TypeVar("Paged", bound=Task | AuditEvent | Submission | WebhookDelivery)

#: Names of rows in messages, where the table has another one.
_NAMES = {TrainingRun.__tablename__: "training"}


def find_row(session: Session, row: type[Found], row_id: UUID) -> Found:
    """Return the row with this primary key. Raises `NotFound`."""
    found = session.get(row, row_id)
    if found is None:
        name = _NAMES.get(row.__tablename__, row.__tablename__.replace("_", " "))
        raise NotFound(f"There is no {name} {row_id}.")
    return found


def read_page(
    session: Session, row: type[Paged], query: PageQuery, *where: sa.ColumnElement[bool]
) -> tuple[Sequence[Paged], UUID | None]:
    """Return a page's rows, the newest first, and `before` of the next page.

    A page is found by the id of its first row, not by an offset, so that new rows do not shift the pages.
    """
    wanted = sa.select(row).where(*where).order_by(row.id.desc()).limit(query.limit + 1)
    if query.before is not None:
        wanted = wanted.where(row.id < query.before)
    found = session.scalars(wanted).all()
    rows = found[: query.limit]
    return rows, rows[-1].id if len(found) > query.limit else None
