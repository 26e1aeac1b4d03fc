"""Which result of an image is the authoritative one, and which of its jobs says where it stands.

The active model's result is authoritative, of which an image has one at most. Results of other models are shown beside
it, under their names, also where the active model has none. All views of results decide it here.
"""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import aliased

from shared.queue.outcome import DUPLICATE
from shared.tables import Job, Model, TopScore
from shared.vocabulary.states import JobState, ModelState

#: Leaves out jobs that ended because another one has their result.
NO_DUPLICATE = Job.code.is_distinct_from(DUPLICATE)

_active = aliased(Model)  # under a name of its own, for a statement may have models itself
_ACTIVE_MODEL = sa.select(_active.id).where(_active.state == ModelState.ACTIVE).scalar_subquery()


def is_of_active_model(job: type[Job] = Job) -> sa.ColumnElement[bool]:
    """Whether a job is the active model's: the request named that model, or none, and no other one has taken it up."""
    return sa.func.coalesce(job.model_id, job.requested_model_id, _ACTIVE_MODEL).is_not_distinct_from(_ACTIVE_MODEL)


def standing(job: type[Job] = Job) -> tuple[Any, Any]:
    """By what an image's jobs are ordered: the last says where the image stands. Leave out duplicates.

    That is the active model's result, else its latest job; where there is none, the latest of any model.
    """
    is_result = sa.and_(job.state == JobState.SUCCEEDED, job.model_id == _ACTIVE_MODEL)
    return sa.case((is_result, 2), (is_of_active_model(job), 1), else_=0), job.id


def is_standing(job: type[Job]) -> sa.ColumnElement[bool]:
    """Whether a job says where its image stands: it is the last by `standing`."""
    other = aliased(Job)
    follows = (other.image_id == job.image_id, other.id != job.id, other.code.is_distinct_from(DUPLICATE))
    goes_first = sa.tuple_(*standing(other)) > sa.tuple_(*standing(job))
    return sa.and_(job.code.is_distinct_from(DUPLICATE), ~sa.exists().where(*follows, goes_first))


def select_results(*conditions: sa.ColumnElement[bool]) -> sa.Select[Job, Model]:
    """Select jobs that have succeeded and their models; of an image the authoritative one first, if it has one.

    Of the others those come first whose models were active last, then the latest.
    """
    results = sa.select(Job, Model).join(Model, Model.id == Job.model_id)
    results = results.where(Job.state == JobState.SUCCEEDED, *conditions)
    return results.order_by(Job.image_id, *authoritative_first())


def authoritative_first() -> list[sa.ColumnElement[Any]]:
    """The order of an image's results; the statement has their models."""
    return [(Model.state == ModelState.ACTIVE).desc(), Model.promoted_at.desc().nulls_last(), Job.id.desc()]


def counts_in_search() -> sa.ColumnElement[bool]:
    """Whether an image is found by a top score: it is of the authoritative result, or the image has no such result."""
    authoritative = aliased(Job)
    return ~sa.exists().where(
        authoritative.image_id == TopScore.image_id,
        authoritative.model_id == _ACTIVE_MODEL,
        authoritative.state == JobState.SUCCEEDED,
        authoritative.id != TopScore.job_id,
    )
