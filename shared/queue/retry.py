"""Another try for jobs that have failed. A job that has come to its end stays so: it gets a successor."""

import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared.database.ids import new_id_in_sql
from shared.tables import Image, Job, SubmissionFile
from shared.version import RENDITION_VERSION
from shared.vocabulary.states import FileState, JobState


def make_successors(session: Session, failed: sa.Subquery) -> list[JobState]:
    """Make a job for each that has failed, and point its submission's file at it; return the new jobs' states.

    `failed` has `job_id`, and `submission_id` and `number` of the file that the new job is for, if it is for one. The
    caller holds what keeps others from doing the same at once.
    """
    is_ready = sa.and_(Image.rendition_sha256.is_not(None), Image.rendition_version == RENDITION_VERSION)
    successor = (
        sa.select(
            failed.c.number,
            new_id_in_sql().label("id"),
            Job.image_id,
            Job.study_id,
            Job.project_id,
            failed.c.submission_id,
            Job.requested_model_id,
            Job.priority,
            sa.case((is_ready, JobState.READY), else_=JobState.QUEUED).label("state"),
            sa.case((is_ready, sa.func.now())).label("ready_at"),
            sa.literal(0).label("attempt"),
            sa.false().label("alone"),
            sa.false().label("counted_on"),
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
