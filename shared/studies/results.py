"""Selects the authoritative result of an image, and the job that determines the state of the image.

The result of the active model is authoritative; an image has at most one. Results of other models are shown beside it
with the model's name, even if the active model has no result. All views of results use this module.
"""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import aliased

from shared.queue.outcome import DUPLICATE
from shared.tables import Job, Model, TopScore
from shared.vocabulary.states import JobState, ModelState

#: Excludes jobs that ended because another job has their result.
NO_DUPLICATE = Job.code.is_distinct_from(DUPLICATE)

_active = aliased(Model)  # an alias, because a statement may use models itself
_ACTIVE_MODEL = sa.select(_active.id).where(_active.state == ModelState.ACTIVE).scalar_subquery()


def is_of_active_model(job: type[Job] = Job) -> sa.ColumnElement[bool]:
    """The condition that a job's model is the active one. A job without a model will run under the active one."""
    return sa.func.coalesce(job.model_id, job.requested_model_id, _ACTIVE_MODEL).is_not_distinct_from(_ACTIVE_MODEL)


def standing(job: type[Job] = Job) -> tuple[Any, Any]:
    """The order of an image's jobs, in which the last job determines the image's state. Duplicates must be excluded.

    The last job is the result of the active model, else its latest job, else the latest job of any model.
    """
    is_result = sa.and_(job.state == JobState.SUCCEEDED, job.model_id == _ACTIVE_MODEL)
    return sa.case((is_result, 2), (is_of_active_model(job), 1), else_=0), job.id


def is_standing(job: type[Job]) -> sa.ColumnElement[bool]:
    """The condition that a job determines the state of its image: it is the last one by `standing`."""
    other = aliased(Job)
    follows = (other.image_id == job.image_id, other.id != job.id, other.code.is_distinct_from(DUPLICATE))
    goes_first = sa.tuple_(*standing(other)) > sa.tuple_(*standing(job))
    return sa.and_(job.code.is_distinct_from(DUPLICATE), ~sa.exists().where(*follows, goes_first))


def select_results(*conditions: sa.ColumnElement[bool]) -> sa.Select[Job, Model]:
    """Select jobs that have succeeded, with their models. For each image, the authoritative one comes first.

    The others are sorted by the last promotion of their model, then by job, newest first.
    """
    results = sa.select(Job, Model).join(Model, Model.id == Job.model_id)
    results = results.where(Job.state == JobState.SUCCEEDED, *conditions)
    return results.order_by(Job.image_id, *authoritative_first())


def authoritative_first() -> list[sa.ColumnElement[Any]]:
    """The order of an image's results. The statement must join `Model`."""
    return [(Model.state == ModelState.ACTIVE).desc(), Model.promoted_at.desc().nulls_last(), Job.id.desc()]


def counts_in_search() -> sa.ColumnElement[bool]:
    """The condition that a search uses a top score: its result is authoritative, or the image has no such result."""
    authoritative = aliased(Job)
    return ~sa.exists().where(
        authoritative.image_id == TopScore.image_id,
        authoritative.model_id == _ACTIVE_MODEL,
        authoritative.state == JobState.SUCCEEDED,
        authoritative.id != TopScore.job_id,
    )
