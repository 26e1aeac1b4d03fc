"""Sessions of the console. Each is a row, so that one that was ended is over for every copy of its cookie."""

from datetime import timedelta
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared.access.keys import Identity, identity_of
from shared.tables import ApiKey, ConsoleSession

#: How long a session lasts; its key may end before.
SESSION = timedelta(hours=12)


def begin_session(session: Session, key_id: UUID) -> UUID:
    """Sign a key in; return the session's id."""
    session.add(begun := ConsoleSession(api_key_id=key_id))
    session.flush()
    return begun.id


def find_session(session: Session, session_id: UUID) -> Identity:
    """Return whom a session stands for; raise `Unauthorized` when it or its key has ended, or `KeyExpired`."""
    live = (ConsoleSession.id == session_id, ConsoleSession.created_at > sa.func.now() - SESSION)
    return identity_of(session.scalar(sa.select(ApiKey).join(ConsoleSession).where(*live)))


def end_session(session: Session, session_id: UUID) -> None:
    """Sign out; does nothing the second time."""
    session.execute(sa.delete(ConsoleSession).where(ConsoleSession.id == session_id))
