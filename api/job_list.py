"""Many jobs at once, for whoever has sent many files and waits."""

from uuid import UUID

import sqlalchemy as sa
from flask import Response
from pydantic import BaseModel, ConfigDict, Field

from api.auth import identity, requires
from api.resource import as_json, resource
from api.schemas import JobAnswer
from api.services import services
from shared.queue.states import Scope
from shared.tables import Image, Job

blueprint = resource("job_list", tag="jobs")


class JobsQuery(BaseModel):
    """Which jobs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: list[UUID] = Field(min_length=1, max_length=100, description="Their ids.")


class JobsAnswer(BaseModel):
    """Jobs in the order of their ids; one that there is not in this project is left out."""

    jobs: list[JobAnswer]


@blueprint.get("/v1/jobs", responses={200: JobsAnswer})
@requires(Scope.READ)
def show_many(query: JobsQuery) -> Response:
    """Show where jobs stand."""
    mine = sa.select(Job, Image).join(Image, Image.id == Job.image_id)
    mine = mine.where(Job.id.in_(query.id), Job.project_id == identity().project_id).order_by(Job.id)
    with services().database.begin() as session:
        return as_json(JobsAnswer(jobs=[JobAnswer.of(job, image) for job, image in session.execute(mine)]))
