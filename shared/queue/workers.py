"""The row of a worker process: by it others know that the process lives."""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from shared.tables import Worker
from shared.vocabulary.states import Stage


def mark_seen(session: Session, owner: str, stage: Stage, device: str | None = None) -> None:
    """Say that this process lives; its row is made where it is missing, as after a backup was restored."""
    row = insert(Worker).values(id=owner, stage=stage, device=device)
    seen = {"seen_at": sa.func.now(), "stopped_at": None}
    session.execute(row.on_conflict_do_update(index_elements=[Worker.id], set_=seen))


def mark_stopped(session: Session, owner: str) -> None:
    """Say that this process has ended in good order."""
    session.execute(sa.update(Worker).where(Worker.id == owner).values(stopped_at=sa.func.now()))
