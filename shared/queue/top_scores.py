"""The highest score of each class in a result, by which studies are searched."""

import math
from collections.abc import Mapping
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Session

from shared.tables import Job, TopScore


def keep_top_scores(session: Session, top_scores: Mapping[UUID, Mapping[str, float]]) -> None:
    """Store the top scores, by class, of jobs that have just succeeded.

    Call it in the transaction that commits their detections. The scores of other models stay, because any model can
    become the active one: `shared.studies.results.counts_in_search` says which count.
    """
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
