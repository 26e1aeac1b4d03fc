"""Notices: after a commit, the threads of all processes that wait for its change are woken, by PostgreSQL's NOTIFY.

A notice only shortens a wait. It may be lost, so a waiting thread also looks periodically: see
`shared.processes.notice_listener`.
"""

from collections.abc import Iterable
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Session

CHANNEL = "carina"
#: The subject of messages to webhooks. Other subjects are the ids of jobs and submissions.
DELIVERIES = "deliveries"
#: PostgreSQL's limit of a payload is 8000 bytes. A longer list becomes an empty one, which wakes all.
_MAX_BYTES = 7900
_NOTIFY = sa.text(f"SELECT pg_notify('{CHANNEL}', :subjects)")


def notify(session: Session, subjects: Iterable[UUID | str | None]) -> None:
    """After this transaction's commit, wake those who wait for a change of these subjects."""
    session.info.setdefault(CHANNEL, set()).update(str(subject) for subject in subjects if subject is not None)


def send_notices(session: Session, engine: sa.Engine) -> None:
    """Send the notices of a transaction that has committed.

    Not in the transaction itself: PostgreSQL commits transactions with a NOTIFY one after the other, and would wait for
    the disk for each of them.
    """
    subjects: set[str] = session.info.pop(CHANNEL, set())
    if subjects:
        payload = " ".join(sorted(subjects))
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(_NOTIFY, {"subjects": payload if len(payload) <= _MAX_BYTES else ""})
