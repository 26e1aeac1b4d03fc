"""The progress of bulk submissions: the outcome of their files, and their end.

A transaction that changes a submission and its files locks the submission first, then its files, then jobs.
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
from shared.database.notices import notify
from shared.leases import change, waiting_values
from shared.notifications.outbox import announce
from shared.queue.outcome import DUPLICATE
from shared.queue.shared_jobs import IS_OPEN
from shared.settings import Settings
from shared.tables import Job, Submission, SubmissionFile
from shared.vocabulary.states import FileState, JobState, SubmissionState
from shared.vocabulary.webhook_events import WebhookEvent

log = structlog.get_logger()

#: A count that took longer than `SLOW_COUNT_S` is stored, and used for `KEPT_FOR` times as long as it took.
SLOW_COUNT_S, KEPT_FOR = 0.25, 20

_OPEN_FILE = SubmissionFile.state.in_(FileState.open())
_HAS_JOB = SubmissionFile.state.in_([FileState.ACCEPTED, FileState.DUPLICATE])
_UNFIT = [FileState.REJECTED, FileState.FAILED]
#: Files whose own code is shown: unfit ones, and those that wait for their quota.
_HAS_CODE = sa.or_(
    SubmissionFile.state.in_(_UNFIT),
    sa.and_(SubmissionFile.state == FileState.ARRIVED, SubmissionFile.code == QuotaExceeded.code),
)
#: Files whose image was there already, and has a result or waits for one.
_IS_DUPLICATE = sa.or_(
    sa.and_(Job.state == JobState.CANCELLED, Job.code == DUPLICATE),
    sa.and_(SubmissionFile.state == FileState.DUPLICATE, sa.or_(Job.state == JobState.SUCCEEDED, IS_OPEN)),
)
#: Duplicates that wait for the job of an earlier request.
_IS_OPEN_DUPLICATE = sa.and_(SubmissionFile.state == FileState.DUPLICATE, Job.counted_on, IS_OPEN)

#: Joins files with their jobs, whose states continue those of accepted files.
JOB_OF_FILE = sa.and_(Job.id == SubmissionFile.job_id, _HAS_JOB)
#: The outcome of a file in the manifest; `CODE` and `REASON` say why it was rejected or failed.
OUTCOME: sa.ColumnElement[str] = sa.case(
    (SubmissionFile.state == FileState.CHECKING, sa.literal_column("'arrived'")),
    (~_HAS_JOB, SubmissionFile.state),
    (_IS_DUPLICATE, sa.literal_column("'duplicate'")),
    (IS_OPEN, sa.literal_column("'accepted'")),
    else_=Job.state,
)
_JOB_IS_UNFIT = Job.state.in_([JobState.REJECTED, JobState.FAILED])
CODE: sa.ColumnElement[str | None] = sa.case((_HAS_CODE, SubmissionFile.code), (_JOB_IS_UNFIT, Job.code))
REASON: sa.ColumnElement[str | None] = sa.case((_HAS_CODE, SubmissionFile.reason), (_JOB_IS_UNFIT, Job.reason))


@dataclass(frozen=True)
class Tally:
    """The number of a submission's files by outcome."""

    #: By outcome, without those that no file has.
    counts: dict[str, int] = field(default_factory=dict)
    #: By code, of rejected and failed files.
    codes: dict[str, int] = field(default_factory=dict)
    #: Duplicates that wait for the job of an earlier request.
    open_duplicates: int = 0
    #: How long it took to count them.
    took_s: float = 0.0

    @property
    def open(self) -> int:
        """How many files are not final."""
        return self.open_duplicates + sum(self.counts.get(name, 0) for name in ("expected", "arrived", "accepted"))

    @property
    def errors(self) -> int:
        """How many files will not have a result."""
        return sum(self.counts.get(outcome, 0) for outcome in ("rejected", "failed", "cancelled"))

    @property
    def total(self) -> int:
        """The number of files."""
        return sum(self.counts.values())


def incoming_key(submission_id: UUID, number: int) -> str:
    """The object key to which a client uploads a file of a submission."""
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
    """Take no more files, because all have been announced or listed; expected files count as arrived from now on.

    Returns how many those were. Does nothing the second time, or to a final submission.
    """
    unfinished = (Submission.id == submission_id, Submission.state.in_(["open", "processing"]))
    closed = sa.update(Submission).where(*unfinished).returning(Submission.id)
    closed = closed.values(state=SubmissionState.PROCESSING, closed_at=sa.func.now())
    if session.scalar(closed.execution_options(synchronize_session=False)) is None:
        return 0
    notify(session, [submission_id])
    late = sa.and_(SubmissionFile.submission_id == submission_id, SubmissionFile.state == FileState.EXPECTED)
    return len(change(session, SubmissionFile, late, **waiting_values(FileState.ARRIVED)))


def count(session: Session, submission_id: UUID) -> Tally:
    """Count a submission's files by outcome; takes a second or two for a million files."""
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
    """Return the number of a submission's files by outcome: of a final submission as stored at its end, else as of now.

    Where counting is slow, one caller at a time counts, and not too often; the others get the last count.
    """
    kept = Tally(**submission.tally) if submission.tally is not None else None
    if kept is not None:
        age_s = session.scalars(sa.select(sa.extract("epoch", sa.func.now() - submission.tallied_at))).one()
        if SubmissionState(submission.state).is_final or age_s < kept.took_s * KEPT_FOR:
            return kept
        # The lock ends with the transaction.
        if not session.scalar(sa.select(sa.func.pg_try_advisory_xact_lock(submission.id.int >> 65))):
            return kept
    counted = count(session, submission.id)
    if counted.took_s > SLOW_COUNT_S:
        _keep(session, submission.id, counted)
    return counted


def settle(session: Session, submission_id: UUID) -> bool:
    """End a closed submission that has no open file and no open job; return whether that was done.

    Jobs that its duplicates share count like its own. Never waits for a lock: the sweep ends a submission that somebody
    else is changing now. Call it after the commit of a file or job that may have been the last.
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
    """Give a locked submission its final state and tally, and announce its end."""
    submission.state, submission.finished_at = state, sa.func.now()
    submission.tally, submission.tallied_at = asdict(counted), sa.func.now()
    session.flush()
    payload: dict[str, Any] = {"submission_id": str(submission.id), "state": str(state), "counts": counted.counts}
    announce(session, submission.project_id, WebhookEvent.SUBMISSION_COMPLETED, payload)
    notify(session, [submission.id])


def sweep_submissions(database: Database, settings: Settings) -> None:
    """Close the submissions that their clients have abandoned, and end those that are done. Can run twice at once."""
    abandoned = sa.select(Submission.id).where(
        Submission.state.in_(["open", "processing"]),
        sa.func.coalesce(Submission.closed_at, Submission.created_at)
        < sa.func.now() - timedelta(hours=settings.submission_expires_h),
        # A submission that is still being listed does not wait for a client.
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
        closing, ending = session.scalars(abandoned).all(), session.scalars(done).all()
    for submission_id in closing:
        with database.begin() as session:
            close(session, submission_id)
        log.info("submission_closed", submission_id=str(submission_id))
    for submission_id in ending:
        with database.begin() as session:
            settle(session, submission_id)


def _has_open(submission_id: Any) -> sa.ColumnElement[bool]:
    # One statement sees one moment: a file becomes accepted and gets its job in the same transaction.
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
