"""The jobs of a project that were rejected or have failed, by error code, and a retry for those that failed."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlalchemy.orm import Session, aliased

from shared.errors import CODES
from shared.queue.numbers import is_one_of
from shared.queue.retry import make_successors
from shared.submissions.changes import reopen
from shared.suggestions import UnknownName
from shared.tables import Image, Job, Submission, SubmissionFile
from shared.vocabulary.states import FileState, JobState, SubmissionState

#: Maximum number of studies that a failure names.
_NAMED = 5
#: Codes of jobs beside those that this process has registered; "unknown" stands for a job without a code.
_OTHER_CODES = frozenset({"unexpected_error", "unknown"})


@dataclass(frozen=True)
class Failure:
    """Jobs that were rejected or have failed for the same reason, without a later job of the same image and model."""

    code: str
    #: A `rejected` image would be rejected again; a `failed` job can be tried again.
    state: JobState
    count: int
    latest_at: datetime
    #: Of the latest, the newest first.
    study_ids: tuple[UUID, ...]
    #: Of the latest.
    reason: str | None


def list_failures(session: Session, project_id: UUID, within: timedelta) -> list[Failure]:
    """List recent failures, the most frequent first; without failed jobs of cancelled submissions."""
    code = _code()
    newest_first = sa.func.array_agg(aggregate_order_by(Image.study_id, Job.finished_at.desc()))
    reasons = sa.func.array_agg(aggregate_order_by(Job.reason, Job.finished_at.desc()))
    is_given_up = sa.exists().where(Submission.id == Job.submission_id, Submission.state == SubmissionState.CANCELLED)
    rows = session.execute(
        sa.select(
            code,
            Job.state,
            sa.func.count().label("count"),
            sa.func.max(Job.finished_at),
            newest_first[1:_NAMED],
            reasons[1],
        )
        .join(Image, Image.id == Job.image_id)
        .where(*_unfit(project_id, within, (JobState.REJECTED, JobState.FAILED)))
        .where(sa.or_(Job.state == JobState.REJECTED, ~is_given_up))
        .group_by(code, Job.state)
        .order_by(sa.desc("count"), code)
    )
    return [
        Failure(code, JobState(state), count, latest_at, tuple(dict.fromkeys(study_ids)), reason)
        for code, state, count, latest_at, study_ids, reason in rows
    ]


def retry_failures(session: Session, project_id: UUID, code: str, within: timedelta) -> list[JobState]:
    """Give the jobs that failed lately with this code successors; return the successors' states.

    A second call makes none. Jobs of cancelled submissions get none. Raises `UnknownName` for an unknown code.
    """
    _require_code(session, project_id, code)
    failed = (*_unfit(project_id, within, (JobState.FAILED,)), _code() == code)
    # Submissions are locked first, then jobs, as everywhere. The rows are read again after the lock.
    submission_ids = sa.select(Job.submission_id).where(*failed, Job.submission_id.is_not(None)).distinct()
    submissions = session.scalars(
        sa.select(Submission)
        .where(Submission.id.in_(submission_ids))
        .order_by(Submission.id)
        .with_for_update(key_share=True)
    ).all()
    session.execute(sa.select(Job.id).where(*failed).order_by(Job.id).with_for_update()).all()
    cancelled = [row.id for row in submissions if row.state == SubmissionState.CANCELLED]
    of_file = sa.and_(
        SubmissionFile.submission_id == Job.submission_id,
        SubmissionFile.job_id == Job.id,
        SubmissionFile.state == FileState.ACCEPTED,
    )
    chosen = (
        sa.select(Job.id.label("job_id"), Job.submission_id, SubmissionFile.number)
        .join(SubmissionFile, of_file, isouter=True)
        .where(*failed, sa.or_(Job.submission_id.is_(None), Job.submission_id.not_in(cancelled)))
    )
    states = make_successors(session, chosen.subquery())
    for submission in submissions if states else ():
        reopen(submission)
    return states


def _require_code(session: Session, project_id: UUID, code: str) -> None:
    if code in (known := CODES.keys() | _OTHER_CODES):
        return
    # A worker of another version may have other codes.
    seen = sa.select(_code()).where(*_unfit(project_id, timedelta(days=365), (JobState.REJECTED, JobState.FAILED)))
    if code not in (known := known | set(session.scalars(seen.distinct()))):
        raise UnknownName("code", code, known, parameter="code")


def _code() -> sa.ColumnElement[str]:
    return sa.func.coalesce(Job.code, "unknown")


def _unfit(project_id: UUID, within: timedelta, states: tuple[JobState, ...]) -> tuple[sa.ColumnElement[bool], ...]:
    later = aliased(Job)
    # A later job of another model does not replace this one.
    is_of_same_model = sa.or_(
        sa.func.coalesce(later.model_id, later.requested_model_id)
        == sa.func.coalesce(Job.model_id, Job.requested_model_id),
        later.requested_model_id.is_not_distinct_from(Job.requested_model_id),
    )
    return (
        Job.project_id == project_id,
        is_one_of(states),
        Job.finished_at > sa.func.now() - within,
        ~sa.exists().where(later.image_id == Job.image_id, later.id > Job.id, is_of_same_model),
    )
