"""Changes of a whole bulk submission: to retry what failed, and to cancel.

The caller locks the submission, as `locked` does; after it the files are locked, then the jobs.
"""

from dataclasses import dataclass
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared.errors import DigestMismatch, NotFound, NotUploaded, RequestError, SizeMismatch
from shared.leases import change, final_values
from shared.queue.ending import end_jobs
from shared.queue.retry import make_successors
from shared.queue.shared_jobs import IS_OPEN
from shared.submissions.progress import count, end
from shared.tables import Job, Submission, SubmissionFile
from shared.vocabulary.states import FileState, JobState, SubmissionState

#: The codes of files that must be uploaded again.
_NOT_ARRIVED = [NotUploaded.code, SizeMismatch.code, DigestMismatch.code]


class SubmissionIsFinal(RequestError):
    """The submission has finished."""

    code = "submission_is_final"
    status = 409


@dataclass(frozen=True)
class Retried:
    """The new states of the files and jobs that are tried again."""

    files: list[FileState]
    jobs: list[JobState]


def locked(session: Session, project_id: UUID, submission_id: UUID) -> Submission:
    """Lock a submission until the end of the transaction, and return it; raise `NotFound`."""
    mine = sa.select(Submission).where(Submission.id == submission_id, Submission.project_id == project_id)
    # Files and jobs can still be added to it.
    submission = session.scalar(mine.with_for_update(key_share=True))
    if submission is None:
        raise NotFound
    return submission


def retry(session: Session, submission: Submission) -> Retried:
    """Give failed jobs successors, and failed files another try; raise `SubmissionIsFinal` if it was cancelled.

    Rejected files and jobs stay, because they would be rejected again.
    """
    if submission.state == SubmissionState.CANCELLED:
        raise SubmissionIsFinal("The submission was cancelled.")
    retried = Retried(_retry_files(session, submission.id), _retry_jobs(session, submission))
    if retried.files or retried.jobs:
        reopen(submission)
    return retried


def reopen(submission: Submission) -> None:
    """Reopen a locked submission whose files or jobs are retried."""
    if submission.state == SubmissionState.COMPLETED_WITH_ERRORS:
        submission.state, submission.finished_at, submission.tally = SubmissionState.PROCESSING, None, None
        # The time within which files must be uploaded begins again.
        submission.closed_at = sa.func.now()


def cancel(session: Session, submission: Submission) -> None:
    """Cancel files and jobs that are not final; their workers can no longer commit. Raise `SubmissionIsFinal`.

    Jobs that are shared with later requests leave the submission and go on.
    """
    if SubmissionState(submission.state).is_final:
        raise SubmissionIsFinal(f"The submission is {submission.state} already.")
    files = SubmissionFile.submission_id == submission.id
    open_files = sa.and_(files, SubmissionFile.state.in_(FileState.open()))
    change(session, SubmissionFile, open_files, **final_values(FileState.CANCELLED), source_key=None)
    # A statement of its own, which sees the job of a file that has just been accepted.
    open_jobs = sa.and_(Job.submission_id == submission.id, IS_OPEN)
    end_jobs(session, sa.and_(open_jobs, ~Job.counted_on), JobState.CANCELLED)
    # The rest: a request that begins to share a job only now has waited for the statement before.
    shared = change(session, Job, open_jobs, submission_id=None)
    of_shared = sa.and_(files, SubmissionFile.state == FileState.ACCEPTED, SubmissionFile.job_id.in_(shared))
    change(session, SubmissionFile, of_shared, state=FileState.CANCELLED)
    end(session, submission, SubmissionState.CANCELLED, count(session, submission.id))


def _retry_files(session: Session, submission_id: UUID) -> list[FileState]:
    to_upload = sa.and_(SubmissionFile.code.in_(_NOT_ARRIVED), SubmissionFile.source_key.is_(None))
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
    return [FileState(state) for state in session.scalars(again.execution_options(synchronize_session=False))]


def _retry_jobs(session: Session, submission: Submission) -> list[JobState]:
    """Make a successor for each failed job of the submission's files; return their states."""
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
