"""Who did what, and who saw whose pixels: a row each, in the transaction of the deed itself where there is one."""

from collections.abc import Mapping
from uuid import UUID

from sqlalchemy.orm import Session

from shared.bounded import without_odd
from shared.tables import AuditEvent

#: The actor of what is done at the command line.
CLI = "cli"


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
) -> None:
    """Add a row. `action` is as `studies.submit`; `subject` holds ids and counts, never a name or a patient's data."""
    session.add(
        AuditEvent(
            project_id=project_id,
            api_key_id=api_key_id,
            actor=actor,
            action=action,
            subject={name: _plain(value) for name, value in subject.items()},
            status=status,
            remote_address=remote_address,
        )
    )


def _plain(value: object) -> object:
    if isinstance(value, str):
        return without_odd(value)  # a path may hold what PostgreSQL cannot
    return value if isinstance(value, int | float | list | None) else str(value)
