"""What may be asked of a bulk submission as a whole: to try again what failed, and to stop.

The submission is locked by the caller, as in `locked`; then follow its files, then jobs.
"""

from dataclasses import dataclass
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared.errors import DigestMismatch, NotFound, NotUploaded, RequestError, SizeMismatch
from shared.notifications import webhooks
from shared.queue.claim import final_values
from shared.queue.known import IS_OPEN
from shared.queue.retry import make_successors
from shared.submissions.progress import count, end
from shared.tables import Job, Submission, SubmissionFile
from shared.vocabulary.states import FileState, JobState, SubmissionState

#: The codes of what has to be sent again.
_NOT_HERE = [NotUploaded.code, SizeMismatch.code, DigestMismatch.code]


class SubmissionIsFinal(RequestError):
    """The submission has finished."""

    code = "submission_is_final"
    status = 409


@dataclass(frozen=True)
class Retried:
    """How many files are tried again, by where they go on."""

    to_upload: int
    to_intake: int
    to_prepare: int
    to_detect: int


def locked(session: Session, project_id: UUID, submission_id: UUID) -> Submission:
    """Return a submission that nobody else changes until the transaction's end; raise `NotFound`."""
    mine = sa.select(Submission).where(Submission.id == submission_id, Submission.project_id == project_id)
    # Files and jobs can still be added to it.
    submission = session.scalar(mine.with_for_update(key_share=True))
    if submission is None:
        raise NotFound
    return submission


def retry(session: Session, submission: Submission) -> Retried:
    """Give failed jobs successors, and failed files another try; raise `SubmissionIsFinal` for a cancelled one.

    What was rejected would be rejected again, and stays so.
    """
    if submission.state == SubmissionState.CANCELLED:
        raise SubmissionIsFinal("The submission was cancelled.")
    files = _retry_files(session, submission.id)
    stages = _retry_jobs(session, submission)
    retried = Retried(
        to_upload=files.count(FileState.EXPECTED),
        to_intake=files.count(FileState.ARRIVED),
        to_prepare=stages.count(JobState.QUEUED),
        to_detect=stages.count(JobState.READY),
    )
    if files or stages:
        reopen(submission)
    return retried


def reopen(submission: Submission) -> None:
    """Have a locked submission go on, of which something is tried again."""
    if submission.state == SubmissionState.COMPLETED_WITH_ERRORS:
        submission.state, submission.finished_at, submission.tally = SubmissionState.PROCESSING, None, None
        # From here on it is waited for what is to be uploaded.
        submission.closed_at = sa.func.now()


def cancel(session: Session, submission: Submission) -> None:
    """Cancel what is not final; whoever holds some of it cannot commit. Raise `SubmissionIsFinal`.

    Jobs that others count on leave the submission and go on.
    """
    if SubmissionState(submission.state).is_final:
        raise SubmissionIsFinal(f"The submission is {submission.state} already.")
    open_files = [state for state in FileState if not state.is_final]
    files = sa.update(SubmissionFile).where(
        SubmissionFile.submission_id == submission.id, SubmissionFile.state.in_(open_files)
    )
    session.execute(_silently(files.values(**final_values_of_files(FileState.CANCELLED), source_key=None)))
    # A statement of its own, which sees the job of a file that has just been accepted.
    jobs = sa.update(Job).where(Job.submission_id == submission.id, IS_OPEN).returning(Job.id)
    ended = jobs.where(~Job.counted_on).values(**final_values(JobState.CANCELLED))
    webhooks.announce_jobs(session, session.scalars(_silently(ended)).all())
    # What is left: a request that counts on a job only now has waited for the statement before.
    left = session.scalars(_silently(jobs.values(submission_id=None))).all()
    theirs = sa.update(SubmissionFile).where(
        SubmissionFile.submission_id == submission.id,
        SubmissionFile.state == FileState.ACCEPTED,
        SubmissionFile.job_id.in_(left),
    )
    session.execute(_silently(theirs.values(state=FileState.CANCELLED)))
    end(session, submission, SubmissionState.CANCELLED, count(session, submission.id))


def final_values_of_files(state: FileState) -> dict[str, object]:
    """The columns of a file that intake is done with."""
    return {"state": state, "lease_owner": None, "lease_expires_at": None, "finished_at": sa.func.now()}


def _retry_files(session: Session, submission_id: UUID) -> list[str]:
    to_upload = sa.and_(SubmissionFile.code.in_(_NOT_HERE), SubmissionFile.source_key.is_(None))
    again = (
        sa.update(SubmissionFile)
        .where(SubmissionFile.submission_id == submission_id, SubmissionFile.state == FileState.FAILED)
        .values(
            state=sa.case((to_upload, FileState.EXPECTED), else_=FileState.ARRIVED),
            attempt=0,
            available_at=sa.func.now(),
            code=None,
            reason=None,
            finished_at=None,
        )
        .returning(SubmissionFile.state)
    )
    return list(session.scalars(_silently(again)))


def _retry_jobs(session: Session, submission: Submission) -> list[JobState]:
    """Make a job for each that has failed, whoever made that; return their states."""
    failed = (
        sa.select(SubmissionFile.job_id, SubmissionFile.submission_id, SubmissionFile.number)
        .join(Job, Job.id == SubmissionFile.job_id)
        .where(
            SubmissionFile.submission_id == submission.id,
            SubmissionFile.state.in_([FileState.ACCEPTED, FileState.DUPLICATE]),
            Job.state == JobState.FAILED,
        )
    )
    return make_successors(session, failed.subquery())


def _silently(change: sa.Update) -> sa.Update:
    return change.execution_options(synchronize_session=False)
