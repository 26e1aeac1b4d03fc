"""Shows and cancels jobs."""

from uuid import UUID

import sqlalchemy as sa
from flask import Response
from sqlalchemy.orm import Session

from api.contract.jobs import JobAnswer, JobPath, JobQuery
from api.http.audit import unaudited
from api.http.auth import identity, requires
from api.http.errors import may_raise
from api.http.polling import poll
from api.http.resource import as_json, resource
from api.http.services import services
from api.studies.answers import describe_job
from shared.errors import JobIsFinal, NotFound
from shared.queue import outcome
from shared.tables import Image, Job
from shared.vocabulary.states import Scope

_OVER = object()

blueprint = resource("jobs")


@blueprint.get("/v1/jobs/<uuid:job_id>", responses={200: JobAnswer})
@requires(Scope.READ)
@unaudited("It shows states and ids, and clients poll it.")
def show(path: JobPath, query: JobQuery) -> Response:
    """Show a job.

    With `wait`, the answer comes when the job is final or the time is over. It may come earlier if many requests are
    waiting already.
    """
    if query.wait > 0 and services().long_polls.acquire(blocking=False):
        try:
            return as_json(_wait_for_end(path.job_id, query.wait))
        finally:
            services().long_polls.release()
    return as_json(_read(path.job_id))


@blueprint.post("/v1/jobs/<uuid:job_id>/cancel", responses={200: JobAnswer})
@requires(Scope.SUBMIT)
@may_raise(JobIsFinal)
def cancel(path: JobPath) -> Response:
    """Cancel a job.

    A job that has finished cannot be cancelled.
    """
    with services().database.begin() as session:
        changed = outcome.cancel(session, identity().project_id, path.job_id)
        answer = _find(session, path.job_id)
    if not changed:
        raise JobIsFinal(f"The job is already {answer.state}.")
    return as_json(answer)


def _wait_for_end(job_id: UUID, wait_s: float) -> JobAnswer:
    answer, waiting = _read(job_id), poll(wait_s, subject=job_id)
    while not answer.state.is_final and next(waiting, _OVER) is not _OVER:
        answer = _read(job_id)
    return answer


def _read(job_id: UUID) -> JobAnswer:
    with services().database.begin() as session:
        return _find(session, job_id)


def _find(session: Session, job_id: UUID) -> JobAnswer:
    mine = sa.select(Job, Image).join(Image, Image.id == Job.image_id)
    row = session.execute(mine.where(Job.id == job_id)).one_or_none()
    if row is None:
        raise NotFound
    return describe_job(row[0], row[1])
