"""Pages of long lists, the newest rows first.

A page is found by the id of its first row, not by an offset, so that new rows do not shift the pages.
"""

from collections.abc import Sequence
from typing import TypeVar
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Session

from api.contract.paging import PageQuery
from shared.tables import AuditEvent, Submission, Task, WebhookDelivery

Found = TypeVar("Found", bound=Task | AuditEvent | Submission | WebhookDelivery)


def read_page(
    session: Session, row: type[Found], query: PageQuery, *where: sa.ColumnElement[bool]
) -> tuple[Sequence[Found], UUID | None]:
    """Return a page's rows, the newest first, and `before` of the next page."""
    wanted = sa.select(row).where(*where).order_by(row.id.desc()).limit(query.limit + 1)
    if query.before is not None:
        wanted = wanted.where(row.id < query.before)
    found = session.scalars(wanted).all()
    rows = found[: query.limit]
    return rows, rows[-1].id if len(found) > query.limit else None
