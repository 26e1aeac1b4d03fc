"""Jobs shared with later requests for the same image.

Such a job goes on when the submission that made it is cancelled, and has the highest priority of all those requests.
"""

from collections.abc import Collection
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared.tables import Job
from shared.vocabulary.states import JobState

#: The condition that a job is not final.
IS_OPEN = Job.state.in_(JobState.open())


def shareable(model_id: UUID | None) -> list[sa.ColumnElement[bool]]:
    """The conditions of a job that has a result or may get one: an image whose job failed gets a new one."""
    conditions: list[sa.ColumnElement[bool]] = [Job.state.not_in([JobState.FAILED, JobState.CANCELLED])]
    if model_id is not None:
        conditions.append(sa.or_(Job.requested_model_id == model_id, Job.model_id == model_id))
    return conditions


def share_jobs(
    session: Session, job_ids: Collection[UUID], submission_id: UUID | None, priority: int, *, wait: bool
) -> set[UUID]:
    """Let a request of this priority share jobs; return those that it can share.

    It cannot share jobs that have meanwhile ended without a result or, unless it is to wait, jobs that somebody else is
    changing. Jobs of the request's own submission are not changed: they end with it.
    """
    jobs = sa.select(Job.id, Job.state, Job.submission_id).where(Job.id.in_(job_ids), *shareable(None))
    rows = session.execute(jobs).all()
    own = {row.id for row in rows if submission_id is not None and row.submission_id == submission_id}
    safe = own | {row.id for row in rows if JobState(row.state).is_final}
    if others := {row.id for row in rows} - safe:
        # In order, so that two requests that wait cannot wait for each other.
        held = sa.select(Job.id).where(Job.id.in_(others), IS_OPEN).order_by(Job.id)
        held = held.with_for_update(key_share=True, skip_locked=not wait)
        counted_on = (
            sa.update(Job)
            .where(Job.id.in_(session.scalars(held).all()))
            .values(counted_on=True, priority=sa.func.greatest(Job.priority, priority))
            .returning(Job.id)
        )
        safe |= set(session.scalars(counted_on.execution_options(synchronize_session=False)))
    return safe
