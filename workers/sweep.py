"""The sweep: whatever fell off the way is put back on it, by whichever beat ticks."""

import sqlalchemy as sa
import structlog
from sqlalchemy.orm import Session

from shared.database import Database
from shared.errors import DatabaseUnavailable
from shared.queue.claim import expire_leases
from shared.queue.hints import Hints
from shared.queue.states import Stage
from shared.settings import Settings
from shared.tables import Job, Worker

log = structlog.get_logger()

#: More hints than this many jobs call for are never of use at once.
COUNTED_AT_MOST = 10_000


def sweep(settings: Settings, database: Database, hints: Hints, owner: str) -> None:
    """Take back expired leases, then hint at all that waits. Two sweeps at once do no harm."""
    try:
        with database.begin() as session:
            outcome = expire_leases(session, max_attempts=settings.max_attempts)
            expired = sum(outcome.values())
            count_expiry = sa.update(Worker).where(Worker.id == owner)
            session.execute(count_expiry.values(expired_leases=Worker.expired_leases + expired))
        with database.begin() as session:
            waiting = {stage: _waiting(session, stage) for stage in (Stage.PREPARE, Stage.DETECT)}
    except DatabaseUnavailable:
        log.warning("sweep_skipped")
        return
    if expired:
        log.warning("leases_expired", **{state: count for state, count in outcome.items() if count})
    for stage, count in waiting.items():
        hints.send(stage, count)


def _waiting(session: Session, stage: Stage) -> int:
    due = sa.select(Job.id).where(Job.state == stage.waiting, Job.available_at <= sa.func.now()).limit(COUNTED_AT_MOST)
    return session.scalar(sa.select(sa.func.count()).select_from(due.subquery())) or 0
