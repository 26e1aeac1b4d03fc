"""Bulk submissions: their files' numbers, what these have come to, and the end of it all.

Whoever changes a submission and its files in one transaction locks the submission first, then its files, then jobs.
"""

import time
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa
import structlog
from sqlalchemy.orm import Session

from shared.access.quotas import QuotaExceeded
from shared.database import Database
from shared.notifications import webhooks
from shared.queue.known import IS_OPEN
from shared.queue.outcome import DUPLICATE
from shared.settings import Settings
from shared.tables import Job, Submission, SubmissionFile
from shared.vocabulary.states import FileState, JobState, SubmissionState
from shared.vocabulary.webhook_events import WebhookEvent

log = structlog.get_logger()

#: A count that took longer than the first is kept, and used for as many times longer as the second says.
SLOW_COUNT_S, KEPT_FOR = 0.25, 20

_OPEN_FILE = SubmissionFile.state.in_([state for state in FileState if not state.is_final])
_HAS_JOB = SubmissionFile.state.in_([FileState.ACCEPTED, FileState.DUPLICATE])
_UNFIT = [FileState.REJECTED, FileState.FAILED]
#: What keeps it out, or what it waits for.
_SAYS_WHY = sa.or_(
    SubmissionFile.state.in_(_UNFIT),
    sa.and_(SubmissionFile.state == FileState.ARRIVED, SubmissionFile.code == QuotaExceeded.code),
)
#: Its image was there already, and has a result or waits for one.
_IS_DUPLICATE = sa.or_(
    sa.and_(Job.state == JobState.CANCELLED, Job.code == DUPLICATE),
    sa.and_(SubmissionFile.state == FileState.DUPLICATE, sa.or_(Job.state == JobState.SUCCEEDED, IS_OPEN)),
)
#: Its image's first job, which it counts on, is not done.
_IS_OPEN_DUPLICATE = sa.and_(SubmissionFile.state == FileState.DUPLICATE, Job.counted_on, IS_OPEN)

#: To be joined to files, so that the job of one that was taken in says how it goes on.
JOB_OF_FILE = sa.and_(Job.id == SubmissionFile.job_id, _HAS_JOB)
#: What a file has come to, in the manifest's words; `code` and `reason` say why it was rejected or failed.
OUTCOME: sa.ColumnElement[str] = sa.case(
    (SubmissionFile.state == FileState.CHECKING, sa.literal_column("'arrived'")),
    (~_HAS_JOB, SubmissionFile.state),
    (_IS_DUPLICATE, sa.literal_column("'duplicate'")),
    (IS_OPEN, sa.literal_column("'accepted'")),
    else_=Job.state,
)
_JOB_IS_UNFIT = Job.state.in_([JobState.REJECTED, JobState.FAILED])
CODE: sa.ColumnElement[str | None] = sa.case((_SAYS_WHY, SubmissionFile.code), (_JOB_IS_UNFIT, Job.code))
REASON: sa.ColumnElement[str | None] = sa.case((_SAYS_WHY, SubmissionFile.reason), (_JOB_IS_UNFIT, Job.reason))


@dataclass(frozen=True)
class Tally:
    """How many of a submission's files have come to what."""

    #: By outcome; those that no file has come to are left out.
    counts: dict[str, int] = field(default_factory=dict)
    #: Of the rejected and failed ones.
    codes: dict[str, int] = field(default_factory=dict)
    #: Of the duplicates, those whose image's first job is not done.
    open_duplicates: int = 0
    #: How long it took to count them.
    took_s: float = 0.0

    @property
    def open(self) -> int:
        """How many have not come to their end."""
        return self.open_duplicates + sum(self.counts.get(name, 0) for name in ("expected", "arrived", "accepted"))

    @property
    def errors(self) -> int:
        """How many will never have a result."""
        return sum(self.counts.get(outcome, 0) for outcome in ("rejected", "failed", "cancelled"))

    @property
    def total(self) -> int:
        """How many there are."""
        return sum(self.counts.values())


def incoming_key(submission_id: UUID, number: int) -> str:
    """Where a client puts a file of a submission."""
    return f"incoming/{submission_id}/{number}"


def allocate(session: Session, submission_id: UUID, count: int) -> int:
    """Give `count` new files their numbers; return the first. Locks the submission, so call it before locking files."""
    taken = (
        sa.update(Submission)
        .where(Submission.id == submission_id)
        .values(file_count=Submission.file_count + count)
        .returning(Submission.file_count - count)
        .execution_options(synchronize_session=False)
    )
    return session.scalars(taken).one()


def close(session: Session, submission_id: UUID) -> int:
    """Take no more files, as all have been announced or listed; what is expected still counts as arrived now.

    Return how many that were. Does nothing the second time, nor to a final submission.
    """
    unfinished = (Submission.id == submission_id, Submission.state.in_(["open", "processing"]))
    closed = sa.update(Submission).where(*unfinished).returning(Submission.id)
    closed = closed.values(state=SubmissionState.PROCESSING, closed_at=sa.func.now())
    if session.scalar(closed.execution_options(synchronize_session=False)) is None:
        return 0
    late = sa.update(SubmissionFile).where(
        SubmissionFile.submission_id == submission_id, SubmissionFile.state == FileState.EXPECTED
    )
    values = {"state": FileState.ARRIVED, "available_at": sa.func.now()}
    done = session.execute(late.values(**values).execution_options(synchronize_session=False))
    return int(done.rowcount)  # type: ignore[attr-defined]


def count(session: Session, submission_id: UUID) -> Tally:
    """Count what a submission's files have come to; a second or two for a million."""
    begun = time.monotonic()
    outcomes = (
        sa.select(
            OUTCOME.label("outcome"),
            CODE.label("code_of"),
            sa.func.count(),
            sa.func.count().filter(_IS_OPEN_DUPLICATE),
        )
        .select_from(SubmissionFile)
        .join(Job, JOB_OF_FILE, isouter=True)
        .where(SubmissionFile.submission_id == submission_id)
        .group_by("outcome", "code_of")
    )
    counts: dict[str, int] = {}
    codes: dict[str, int] = {}
    open_duplicates = 0
    for outcome, code, files, waiting in session.execute(outcomes):
        counts[outcome] = counts.get(outcome, 0) + files
        if code is not None:
            codes[code] = codes.get(code, 0) + files
        open_duplicates += waiting
    return Tally(counts, codes, open_duplicates, time.monotonic() - begun)


def tally(session: Session, submission: Submission) -> Tally:
    """Return what a submission's files have come to: of a final one as frozen, else as of now.

    Where counting is slow it is done by one caller at a time, and not before it is worth it; the others get what was
    counted last.
    """
    kept = Tally(**submission.tally) if submission.tally is not None else None
    if kept is not None:
        age_s = session.scalars(sa.select(sa.extract("epoch", sa.func.now() - submission.tallied_at))).one()
        if SubmissionState(submission.state).is_final or age_s < kept.took_s * KEPT_FOR:
            return kept
        # Ends with the transaction.
        if not session.scalar(sa.select(sa.func.pg_try_advisory_xact_lock(submission.id.int >> 65))):
            return kept
    counted = count(session, submission.id)
    if counted.took_s > SLOW_COUNT_S:
        _keep(session, submission.id, counted)
    return counted


def settle(session: Session, submission_id: UUID) -> bool:
    """End a closed submission of which no file and no job is open; return whether that was done.

    Jobs that its duplicates count on are waited for like its own.
    Never waits: one that somebody else is changing is left for the next time, which the sweep makes sure of. Call it
    once what may have been last is committed.
    """
    closed = sa.select(Submission).where(
        Submission.id == submission_id,
        Submission.state == SubmissionState.PROCESSING,
        Submission.closed_at.is_not(None),
    )
    closed = closed.with_for_update(key_share=True, skip_locked=True).execution_options(populate_existing=True)
    submission = session.scalar(closed)
    if submission is None or session.scalar(sa.select(_has_open(submission_id))):
        return False
    counted = count(session, submission_id)
    end(
        session,
        submission,
        SubmissionState.COMPLETED_WITH_ERRORS if counted.errors else SubmissionState.COMPLETED,
        counted,
    )
    return True


def end(session: Session, submission: Submission, state: SubmissionState, counted: Tally) -> None:
    """Give a locked submission its last state and tally, and tell who wants to hear of it."""
    submission.state, submission.finished_at = state, sa.func.now()
    submission.tally, submission.tallied_at = asdict(counted), sa.func.now()
    session.flush()
    payload: dict[str, Any] = {"submission_id": str(submission.id), "state": str(state), "counts": counted.counts}
    webhooks.announce(session, submission.project_id, WebhookEvent.SUBMISSION_COMPLETED, payload)


def sweep_submissions(database: Database, settings: Settings) -> None:
    """Close the submissions that nobody goes on with, and end those that are done. Two sweeps at once do no harm."""
    forgotten = sa.select(Submission.id).where(
        Submission.state.in_(["open", "processing"]),
        sa.func.coalesce(Submission.closed_at, Submission.created_at)
        < sa.func.now() - timedelta(hours=settings.submission_expires_h),
        # One that is still being listed is not waiting for a client.
        sa.or_(Submission.state == SubmissionState.PROCESSING, Submission.source_bucket.is_(None)),
        sa.or_(
            Submission.state == SubmissionState.OPEN,
            sa.exists().where(
                SubmissionFile.submission_id == Submission.id, SubmissionFile.state == FileState.EXPECTED
            ),
        ),
    )
    done = sa.select(Submission.id).where(Submission.state == SubmissionState.PROCESSING, ~_has_open(Submission.id))
    with database.begin() as session:
        closing, ending = session.scalars(forgotten).all(), session.scalars(done).all()
    for submission_id in closing:
        with database.begin() as session:
            close(session, submission_id)
        log.info("submission_closed", submission_id=str(submission_id))
    for submission_id in ending:
        with database.begin() as session:
            settle(session, submission_id)


def _has_open(submission_id: Any) -> sa.ColumnElement[bool]:
    # In one statement, and so at one moment: a file that becomes accepted gets its job in the same transaction.
    return sa.or_(
        sa.exists().where(SubmissionFile.submission_id == submission_id, _OPEN_FILE),
        sa.exists().where(Job.submission_id == submission_id, IS_OPEN),
        sa.exists().where(
            SubmissionFile.submission_id == submission_id, Job.id == SubmissionFile.job_id, _IS_OPEN_DUPLICATE
        ),
    )


def _keep(session: Session, submission_id: UUID, counted: Tally) -> None:
    unfinished = (Submission.id == submission_id, Submission.state.in_(["open", "processing"]))
    values = {"tally": asdict(counted), "tallied_at": sa.func.now()}
    session.execute(
        sa.update(Submission).where(*unfinished).values(**values).execution_options(synchronize_session=False)
    )
