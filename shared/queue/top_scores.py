"""What studies are found by: of each class the highest score that an image's latest result has."""

import math
from collections.abc import Mapping
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Session, aliased

from shared.queue.states import JobState
from shared.tables import Job, TopScore


def keep_top_scores(session: Session, top_scores: Mapping[UUID, Mapping[str, float]]) -> None:
    """Keep the top scores, by class, of jobs that have just succeeded, and none of their images' earlier ones.

    Call it in the transaction that committed their detections. A job that was made earlier but succeeds later leaves
    its scores beside those of the latest: `is_latest_result` tells them apart.
    """
    mine, earlier = aliased(Job), aliased(Job)
    jobs = sa.literal(list(top_scores), ARRAY(sa.Uuid()))
    replaced = sa.select(earlier.study_id, earlier.id).join(mine, mine.image_id == earlier.image_id)
    replaced = replaced.where(mine.id == sa.any_(jobs), earlier.id < mine.id, earlier.state == JobState.SUCCEEDED)
    # Asked first, for there is hardly ever one.
    for study_id, job_id in session.execute(replaced):
        gone = sa.delete(TopScore).where(TopScore.study_id == study_id, TopScore.job_id == job_id)
        session.execute(gone.execution_options(synchronize_session=False))

    rows = [(job_id, name, score) for job_id, scores in top_scores.items() for name, score in scores.items()]
    if not rows:
        return
    job_ids, names, scores = zip(*rows, strict=True)
    found = sa.func.unnest(
        sa.literal(job_ids, ARRAY(sa.Uuid())),
        sa.literal(names, ARRAY(sa.Text())),
        sa.literal(scores, ARRAY(sa.Double())),
        sa.literal([tenth_of(score) for score in scores], ARRAY(sa.SmallInteger())),
    ).table_valued("job_id", "class_name", "score", "tenth", name="found")
    found = found.render_derived()
    columns = (Job.project_id, Job.study_id, Job.image_id, *found.c)
    new = sa.select(*columns).select_from(found).join(Job, Job.id == found.c.job_id)
    session.execute(sa.insert(TopScore).from_select([column.key for column in columns], new))


def tenth_of(score: float) -> int:
    """The first decimal of a score."""
    return math.floor(score * 10)


def is_latest_result() -> sa.ColumnElement[bool]:
    """The condition under which a top score is of its image's latest job that has succeeded."""
    later = aliased(Job)
    return ~sa.exists().where(
        later.image_id == TopScore.image_id, later.id > TopScore.job_id, later.state == JobState.SUCCEEDED
    )
