"""The end of a job: the only place that writes a final state and announces it."""

from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared.leases import change, final_values
from shared.notifications.outbox import announce_jobs
from shared.tables import Job
from shared.vocabulary.states import JobState


def end_jobs(session: Session, which: sa.ColumnElement[bool], state: JobState, **values: Any) -> list[UUID]:
    """End the jobs under a condition, and write the messages about it; return them."""
    ended: list[UUID] = change(session, Job, which, **final_values(state), **values)
    announce_jobs(session, ended)
    return ended
