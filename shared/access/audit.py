"""The audit: who changed data, and who read data. A change and its audit row share one transaction."""

from collections.abc import Callable, Collection, Mapping
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from shared.bounded import without_odd
from shared.errors import AuditUnavailable, CarinaError
from shared.ids import new_id
from shared.suggestions import UnknownName
from shared.tables import AuditEvent

#: The actor of an action at the command line.
CLI = "cli"
#: The actor of what an erasure does later.
ERASURE = "erasure"
#: Actions outside the API. An action of the API has the name of its view.
OFF_API = frozenset(
    {
        "backup",
        "dataset.erase",
        "dataset.import",
        "dicom.store",
        "fsck",
        "key.create",
        "key.revoke",
        "model.demo",
        "restore",
    }
)
#: The number of latest rows that are searched for a similar action.
_LATEST = 10_000

#: Whether this transaction has changed or locked a row.
_HAS_CHANGED = sa.func.txid_current_if_assigned().is_not(None)


def record(
    session: Session,
    *,
    action: str,
    subject: Mapping[str, object],
    project_id: UUID | None = None,
    api_key_id: UUID | None = None,
    actor: str | None = None,
    status: int | None = None,
    remote_address: str | None = None,
    only_if_changed: bool = False,
) -> bool:
    """Write an audit row; return whether it was written.

    `only_if_changed` writes it only if the transaction has changed a row. `action` is, for example, `studies.submit`.
    `subject` holds ids, counts and the reason of a promotion, never a name or a patient's data. Call it last in a
    transaction. Raises `AuditUnavailable`, and the errors of earlier changes, which it flushes.
    """
    session.flush()
    columns = AuditEvent.__table__.c
    values = {
        "id": new_id(),
        "project_id": project_id or getattr(session, "project_id", None),  # a `ProjectSession` has one
        "api_key_id": api_key_id,
        "actor": actor,
        "action": action,
        "subject": {name: _plain(value) for name, value in subject.items()},
        "status": status,
        "remote_address": remote_address,
    }
    row = sa.select(*(sa.literal(value, columns[name].type) for name, value in values.items()))
    if only_if_changed:
        row = row.where(_HAS_CHANGED)
    insert = sa.insert(AuditEvent).from_select(list(values), row, include_defaults=False)
    try:
        return session.execute(insert.returning(AuditEvent.id)).first() is not None
    except CarinaError:
        raise
    except SQLAlchemyError as exc:
        raise AuditUnavailable from exc


def require_action(session: Session, action: str, of_api: Callable[[], Collection[str]]) -> None:
    """Raise `UnknownName` unless a row has this action, the API has it, or `OFF_API` holds it."""
    if session.scalar(sa.select(AuditEvent.id).where(AuditEvent.action == action).limit(1)):
        return
    known = OFF_API.union(of_api())
    if action in known:
        return
    latest = sa.select(AuditEvent).order_by(AuditEvent.id.desc()).limit(_LATEST).subquery()
    seen = session.scalars(sa.select(latest.c.action).distinct())
    raise UnknownName("action", action, {*known, *seen}, parameter="action")


def _plain(value: object) -> object:
    if isinstance(value, str):
        return without_odd(value)  # a path may hold characters that PostgreSQL rejects
    return value if isinstance(value, int | float | list | None) else str(value)
