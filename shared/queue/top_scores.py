"""What studies are found by: of each class the highest score that an image's latest result has."""

from collections.abc import Collection
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Session, aliased

from shared.queue.states import JobState
from shared.tables import Detection, Job, TopScore


def keep_top_scores(session: Session, job_ids: Collection[UUID]) -> None:
    """Keep the top scores of jobs that have just succeeded, and none of their images' earlier ones.

    Call it in the transaction that committed their detections. A job that was made earlier but succeeds later may leave
    its scores behind: `is_latest_result` tells.
    """
    if not job_ids:
        return
    mine, earlier = aliased(Job), aliased(Job)
    of_these = sa.literal(list(job_ids), ARRAY(sa.Uuid()))
    replaced = (mine.id == sa.any_(of_these), earlier.image_id == mine.image_id, earlier.id < mine.id)
    gone = sa.delete(TopScore).where(*replaced, TopScore.study_id == mine.study_id, TopScore.job_id == earlier.id)
    session.execute(gone.execution_options(synchronize_session=False))
    top = sa.func.max(Detection.score)
    columns = [Job.id, Detection.class_name, Job.project_id, Job.study_id, Job.image_id]
    found = (
        sa.select(*columns, top, sa.func.floor(top * 10))
        .join(Detection, Detection.job_id == Job.id)
        .where(Job.id == sa.any_(of_these))
        .group_by(*columns)
    )
    names = ["job_id", "class_name", "project_id", "study_id", "image_id", "score", "tenth"]
    session.execute(sa.insert(TopScore).from_select(names, found))


def is_latest_result() -> sa.ColumnElement[bool]:
    """The condition under which a top score is of its image's latest job that has succeeded."""
    later = aliased(Job)
    return ~sa.exists().where(
        later.image_id == TopScore.image_id, later.id > TopScore.job_id, later.state == JobState.SUCCEEDED
    )
