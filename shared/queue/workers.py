"""The row of a worker process, which tells others that the process is alive; and the leases of ended processes."""

from datetime import timedelta

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from shared.database import is_any
from shared.leases import end_leases, list_owners
from shared.processes.owners import has_ended
from shared.tables import Worker
from shared.vocabulary.states import WorkerKind

#: A worker that has not been seen for this long is not alive.
SEEN_WITHIN = timedelta(seconds=90)


def is_alive() -> sa.ColumnElement[bool]:
    """The condition that a worker's process is alive."""
    return sa.and_(Worker.stopped_at.is_(None), Worker.seen_at > sa.func.now() - SEEN_WITHIN)


def mark_seen(session: Session, owner: str, kind: WorkerKind, device: str | None = None) -> None:
    """Record that this process is alive; inserts its row if it is missing, as after a backup was restored."""
    row = insert(Worker).values(id=owner, stage=kind, device=device)
    seen = {"seen_at": sa.func.now(), "stopped_at": None}
    session.execute(row.on_conflict_do_update(index_elements=[Worker.id], set_=seen))


def mark_stopped(session: Session, owner: str) -> None:
    """Record that this process has ended cleanly."""
    session.execute(sa.update(Worker).where(Worker.id == owner).values(stopped_at=sa.func.now()))


def end_leases_of_ended(session: Session, own: str) -> int:
    """End the leases of processes that have ended, as far as the process of `own` can know; return how many.

    The next sweep returns their rows, instead of when the leases would have expired.
    """
    owners = list_owners(session)
    stopped = sa.select(Worker.id).where(is_any(Worker.id, sorted(owners)), Worker.stopped_at.is_not(None))
    ended = {owner for owner in owners if has_ended(owner, own)}.union(session.scalars(stopped))
    return end_leases(session, ended) if ended else 0
