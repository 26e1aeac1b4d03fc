"""Retries failed jobs on request: a final job is never changed, so a new job, its successor, takes its place.

`shared.leases` has the rule by which a job that is not final gets another attempt.
"""

import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared.database.ids import new_id_in_sql
from shared.queue.stages import PREPARE
from shared.tables import Image, Job, SubmissionFile
from shared.version import RENDITION_VERSION
from shared.vocabulary.states import FileState, JobState

#: The columns that a successor does not inherit: its own identity, and those that tell what became of its predecessor.
NOT_INHERITED = frozenset(
    {"id", "submission_id", "model_id", "state", "attempt", "alone", "counted_on", "available_at", "lease_owner"}
    | {"lease_expires_at", "code", "reason", "code_version", "created_at", "ready_at", "finished_at"}
)
_COLUMNS = Job.__table__.columns
_INHERITED = [column for column in _COLUMNS if column.name not in NOT_INHERITED]
#: Python's defaults of the others. The database knows its own.
_DEFAULTS = [
    sa.cast(column.default.arg, column.type).label(column.name)
    for column in _COLUMNS
    if column.name in NOT_INHERITED - {"state"} and column.default is not None and column.default.is_scalar
]


def make_successors(session: Session, failed: sa.Subquery) -> list[JobState]:
    """Make a job for each that has failed, and point its submission's file at it; return the new jobs' states.

    `failed` has `job_id`, and `submission_id` and `number` of the file that the new job is for, if it is for one. The
    caller holds a lock that keeps others from doing the same at once.
    """
    is_ready = sa.and_(Image.rendition_sha256.is_not(None), Image.rendition_version == RENDITION_VERSION)
    successor = (
        sa.select(
            failed.c.number,
            new_id_in_sql().label("id"),
            failed.c.submission_id,
            sa.case((is_ready, PREPARE.done), else_=PREPARE.waiting).label("state"),
            sa.case((is_ready, sa.func.now())).label("ready_at"),
            *_INHERITED,
            *_DEFAULTS,
        )
        .select_from(failed)
        .join(Job, Job.id == failed.c.job_id)
        .join(Image, Image.id == Job.image_id)
        .cte("successor")
    )
    columns = [column for column in successor.c if column.key != "number"]
    names = [column.key for column in columns]
    jobs = sa.insert(Job).from_select(names, sa.select(*columns), include_defaults=False).returning(Job.id)
    files = (
        sa.update(SubmissionFile)
        .where(SubmissionFile.submission_id == successor.c.submission_id, SubmissionFile.number == successor.c.number)
        .values(job_id=successor.c.id, state=FileState.ACCEPTED)
        .returning(SubmissionFile.number)
    )
    made = sa.select(successor.c.state).add_cte(jobs.cte("jobs"), files.cte("files"))
    return [JobState(state) for state in session.scalars(made)]
