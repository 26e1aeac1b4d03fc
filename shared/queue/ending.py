"""The end of a job: the only place that writes a final state and announces it."""

from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared.database.notices import notify
from shared.leases import final_values
from shared.notifications.outbox import announce_jobs
from shared.tables import Job
from shared.vocabulary.states import JobState


def end_jobs(session: Session, which: sa.ColumnElement[bool], state: JobState, **values: Any) -> list[UUID]:
    """End the jobs under a condition, write the messages about it, and wake those who wait for it; return them."""
    update = sa.update(Job).where(which).values(**final_values(state), **values)
    returned = update.returning(Job.id, Job.submission_id).execution_options(synchronize_session=False)
    submissions: dict[UUID, UUID | None] = {row.id: row.submission_id for row in session.execute(returned)}
    announce_jobs(session, submissions)
    notify(session, [*submissions, *submissions.values()])
    return list(submissions)
