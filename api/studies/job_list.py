"""Shows several jobs in one request, for clients that wait for many jobs."""

import sqlalchemy as sa
from flask import Response

from api.contract.jobs import JobsAnswer, JobsQuery
from api.http.audit import unaudited
from api.http.auth import requires
from api.http.resource import as_json, resource
from api.http.services import services
from api.studies.answers import describe_job
from shared.tables import Image, Job
from shared.vocabulary.states import Scope

blueprint = resource("job_list", tag="jobs")


@blueprint.get("/v1/jobs", responses={200: JobsAnswer})
@requires(Scope.READ)
@unaudited("It shows states and ids, and clients poll it.")
def show_many(query: JobsQuery) -> Response:
    """Show several jobs.

    Returns up to 100 jobs, sorted by id. Ids that are unknown in this project are left out.
    """
    mine = sa.select(Job, Image).join(Image, Image.id == Job.image_id)
    mine = mine.where(Job.id.in_(query.id)).order_by(Job.id)
    with services().database.begin() as session:
        return as_json(JobsAnswer(jobs=[describe_job(job, image) for job, image in session.execute(mine)]))
