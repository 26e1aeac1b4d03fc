"""Sessions of the console. Each is a row, so that signing out invalidates all copies of its cookie."""

from datetime import timedelta
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared.access.keys import Identity, identity_of
from shared.tables import ApiKey, ConsoleSession

#: The lifetime of a session. It ends earlier if its key expires or is revoked.
SESSION = timedelta(hours=12)


def begin_session(session: Session, key_id: UUID) -> UUID:
    """Start a session for a key; return the session's id."""
    session.add(begun := ConsoleSession(api_key_id=key_id))
    session.flush()
    return begun.id


def find_session(session: Session, session_id: UUID) -> Identity:
    """Return the identity of a session's key.

    Raises `Unauthorized` if the session has ended or its key is revoked, and `KeyExpired`.
    """
    live = (ConsoleSession.id == session_id, ConsoleSession.created_at > sa.func.now() - SESSION)
    return identity_of(session.scalar(sa.select(ApiKey).join(ConsoleSession).where(*live)))


def end_session(session: Session, session_id: UUID) -> None:
    """Delete a session. Deleting a missing session is a no-op."""
    session.execute(sa.delete(ConsoleSession).where(ConsoleSession.id == session_id))
