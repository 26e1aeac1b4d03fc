"""The sweep: whatever fell off the way is put back on it, and what is due is started, by whichever beat ticks."""

from collections.abc import Callable

import sqlalchemy as sa
import structlog
from sqlalchemy.orm import Session

from shared.database import Database
from shared.due import claim_due
from shared.errors import DatabaseUnavailable
from shared.queue.claim import expire_leases
from shared.queue.hints import Hints
from shared.queue.states import Stage
from shared.settings import Settings
from shared.tables import Job, Worker
from shared.tasks import expire_tasks

log = structlog.get_logger()

#: More hints than this many jobs call for are never of use at once.
COUNTED_AT_MOST = 10_000


def sweep(settings: Settings, database: Database, hints: Hints, owner: str) -> None:
    """Take back expired leases, hint at all that waits, and start the trainings that are due.

    Two sweeps at once do no harm. Each step has its own transaction, and one that fails does not stop the next.
    """

    def jobs() -> None:
        with database.begin() as session:
            outcome = expire_leases(session, max_attempts=settings.max_attempts)
            expired = sum(outcome.values())
            count_expiry = sa.update(Worker).where(Worker.id == owner)
            session.execute(count_expiry.values(expired_leases=Worker.expired_leases + expired))
        if expired:
            log.warning("leases_expired", **{state: count for state, count in outcome.items() if count})

    def waiting() -> None:
        with database.begin() as session:
            counts = {stage: _count_waiting(session, stage) for stage in (Stage.PREPARE, Stage.DETECT)}
        for stage, count in counts.items():
            hints.send(stage, count)

    def tasks() -> None:
        with database.begin() as session:
            expired = expire_tasks(session, max_attempts=settings.max_attempts)
        if expired:
            log.warning("tasks_expired", count=expired)

    def schedules() -> None:
        with database.begin() as session:
            outcomes = claim_due(session)
        for outcome in outcomes:
            started = str(outcome.run_id) if outcome.run_id else None
            log.info("schedule_due", schedule_id=str(outcome.schedule_id), run_id=started)

    for step in (jobs, waiting, tasks, schedules):
        _try(step)


def _try(step: Callable[[], None]) -> None:
    try:
        step()
    except DatabaseUnavailable:
        log.warning("sweep_skipped", step=step.__name__)
    except Exception as exc:
        log.error("sweep_failed", step=step.__name__, exc_info=exc)


def _count_waiting(session: Session, stage: Stage) -> int:
    due = sa.select(Job.id).where(Job.state == stage.waiting, Job.available_at <= sa.func.now()).limit(COUNTED_AT_MOST)
    return session.scalar(sa.select(sa.func.count()).select_from(due.subquery())) or 0
