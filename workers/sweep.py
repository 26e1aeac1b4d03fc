"""The sweep of each beat: expires leases, repeats hints, starts due trainings and samples the queue."""

from collections.abc import Callable

import sqlalchemy as sa
import structlog
from sqlalchemy.orm import Session

from shared.database import Database
from shared.erasure import finish_all
from shared.errors import DatabaseUnavailable
from shared.leases import is_due
from shared.object_store.incoming import Incoming
from shared.queue.claim import expire_leases
from shared.queue.files import expire_file_leases, is_listing
from shared.queue.hints import Hints
from shared.queue.samples import take_sample
from shared.queue.stages import STAGES
from shared.queue.workers import end_leases_of_ended
from shared.settings import Settings
from shared.submissions.progress import sweep_submissions
from shared.tables import Job, Submission, SubmissionFile, Worker
from shared.tables.rows import Leased
from shared.training.due import claim_due
from shared.training.tasks import expire_tasks
from shared.vocabulary.states import FileState, LeasedState, WorkerKind
from workers.cleanup import Cleanup
from workers.frozen_sessions import end_frozen_sessions
from workers.process import WorkerProcess

log = structlog.get_logger()

#: Maximum number of rows to count. A higher count would only send more hints than there are workers.
MAX_COUNTED_ROWS = 10_000


def run(settings: Settings) -> None:
    """Sweep every `sweep_interval_s`, with or without Redis, until SIGTERM. Several processes may do this."""
    with WorkerProcess(settings, WorkerKind.SWEEP, stuck_after_s=settings.step_timeout_s) as process:
        process.unasked_s = process.deaf_s = settings.sweep_interval_s
        cleanup = Cleanup(settings, process.database, Incoming(settings))

        def tick() -> None:
            sweep(settings, process.database, process.hints, process.heartbeat.owner)
            finish_all(process.database, process.store)
            cleanup.run_when_due()

        process.serve(tick)


def sweep(settings: Settings, database: Database, hints: Hints, owner: str) -> None:
    """Do all steps of a sweep. Two sweeps can run at once.

    Each step has its own transaction, and a failed step does not stop the next one.
    """

    steps: dict[str, Callable[[], object]] = {
        "frozen_sessions": lambda: _end_frozen(settings, database),
        "ended": lambda: _end_leases(database, owner),
        "leases": lambda: _expire(settings, database, owner),
        "waiting": lambda: _hint(database, hints),
        "tasks": lambda: _expire_tasks(settings, database),
        "schedules": lambda: _start_due(database),
        "submissions": lambda: sweep_submissions(database, settings),
        "samples": lambda: _sample(database),
    }
    for name, step in steps.items():
        _try(name, step)


def _end_frozen(settings: Settings, database: Database) -> None:
    with database.begin() as session:
        ended = end_frozen_sessions(session, after_s=settings.lease_s)
    if ended:
        log.warning("frozen_sessions_ended", count=ended)


def _end_leases(database: Database, owner: str) -> None:
    with database.begin() as session:
        ended = end_leases_of_ended(session, owner)
    if ended:
        log.warning("leases_of_ended_processes", count=ended)


def _expire(settings: Settings, database: Database, owner: str) -> None:
    with database.begin() as session:
        jobs = expire_leases(session, max_attempts=settings.max_attempts)
        files = expire_file_leases(session, max_attempts=settings.max_attempts)
        expired = sum(jobs.values()) + sum(files.values())
        count_expiry = sa.update(Worker).where(Worker.id == owner)
        session.execute(count_expiry.values(expired_leases=Worker.expired_leases + expired))
    for what, outcome in (("jobs", jobs), ("files", files)):
        if any(outcome.values()):
            log.warning("leases_expired", of=what, **{state: count for state, count in outcome.items() if count})


def _expire_tasks(settings: Settings, database: Database) -> None:
    with database.begin() as session:
        expired = expire_tasks(session, max_attempts=settings.max_attempts)
    if expired:
        log.warning("tasks_expired", count=expired)


def _start_due(database: Database) -> None:
    with database.begin() as session:
        outcomes = claim_due(session)
    for outcome in outcomes:
        started = str(outcome.run_id) if outcome.run_id else None
        log.info("schedule_due", schedule_id=str(outcome.schedule_id), run_id=started)


def _sample(database: Database) -> None:
    with database.begin() as session:
        take_sample(session)


def _hint(database: Database, hints: Hints) -> None:
    with database.begin() as session:
        counts = {stage.worker: _count_due(session, Job, stage.waiting) for stage in STAGES}
        listings = sa.select(sa.func.count()).select_from(Submission).where(is_listing())
        files = _count_due(session, SubmissionFile, FileState.ARRIVED)
        counts[WorkerKind.INTAKE] = files + (session.scalar(listings) or 0)
    for kind, count in counts.items():
        hints.send(kind, count)


def _try(name: str, step: Callable[[], object]) -> None:
    try:
        step()
    except DatabaseUnavailable as exc:
        log.warning("sweep_skipped", step=name, code=exc.code)
    except Exception as exc:
        log.error("sweep_failed", step=name, exc_info=exc)


def _count_due(session: Session, table: type[Leased], state: LeasedState) -> int:
    due = sa.select(sa.literal(1)).select_from(table).where(is_due(table, state)).limit(MAX_COUNTED_ROWS)
    return session.scalar(sa.select(sa.func.count()).select_from(due.subquery())) or 0
