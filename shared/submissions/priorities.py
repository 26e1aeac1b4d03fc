"""Changing the priority of what waits: of a submission, a study or a job."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared.database import is_any
from shared.errors import NotFound
from shared.leases import change
from shared.queue.shared_jobs import IS_OPEN
from shared.tables import Job, Study, Submission, SubmissionFile
from shared.vocabulary.states import FileState

_Table = type[Submission | Study | Job]


@dataclass(frozen=True)
class Reordered:
    """The number of rows whose priority was changed."""

    jobs: int
    files: int


def set_priority(session: Session, project_id: UUID, which: UUID, priority: int) -> Reordered:
    """Set the priority of the open jobs and files of a submission, a study or a job; raise `NotFound`.

    A worker finishes the step that it has begun; the priority decides when the next step begins.
    """
    tables: dict[_Table, Any] = {Submission: Job.submission_id, Study: Job.study_id, Job: Job.id}
    owned = (table for table in tables if _is_owned(session, table, project_id, which))
    if (table := next(owned, None)) is None:
        raise NotFound(f"There is no submission, study or job {which}.")
    # In the order of ids, so that two such changes never wait for each other.
    waiting = (tables[table] == which, Job.project_id == project_id, IS_OPEN, Job.priority != priority)
    jobs = session.scalars(sa.select(Job.id).where(*waiting).order_by(Job.id).with_for_update()).all()
    change(session, Job, is_any(Job.id, jobs), priority=priority)
    files = 0
    if table is Submission:
        session.execute(sa.update(Submission).where(Submission.id == which).values(priority=priority))
        unread = (
            SubmissionFile.submission_id == which,
            SubmissionFile.state.in_(FileState.open()),
            SubmissionFile.priority != priority,
        )
        files = len(change(session, SubmissionFile, sa.and_(*unread), priority=priority))
    return Reordered(len(jobs), files)


def _is_owned(session: Session, table: _Table, project_id: UUID, which: UUID) -> bool:
    return session.scalar(sa.select(table.id).where(table.id == which, table.project_id == project_id)) is not None
