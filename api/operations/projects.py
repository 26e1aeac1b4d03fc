"""The project of a key: its bytes, and for how long it keeps data."""

from collections.abc import Mapping
from uuid import UUID

import sqlalchemy as sa
from flask import Response

from api.contract.projects import ProjectAnswer, ProjectsAnswer, RetentionAnswer, RetentionRequest
from api.http.audit import note
from api.http.auth import identity, requires
from api.http.errors import may_raise
from api.http.resource import as_json, resource
from api.http.services import services
from shared.erasure.retention import days_kept
from shared.erasure.stored import Stored, count_stored
from shared.errors import RequestError
from shared.tables import Project
from shared.vocabulary.retention import Retained
from shared.vocabulary.states import Scope

blueprint = resource("projects")

_MAX_DAYS = 36_500


class InvalidRetention(RequestError):
    """A retention time is a number of days from 0 to 36,500."""

    code = "invalid_retention"
    status = 422


@blueprint.get("/v1/project", responses={200: ProjectAnswer})
@requires(Scope.READ)
def show() -> Response:
    """Show the project of the key.

    Shows how many images and bytes it has stored, and for how long it keeps data.
    """
    with services().database.begin() as session:
        project = session.get_one(Project, identity().project_id)
        return as_json(_describe(project, count_stored(session, project.id)))


@blueprint.get("/v1/projects", responses={200: ProjectsAnswer})
@requires(Scope.SYSTEM)
def show_all() -> Response:
    """List projects.

    Shows the images, bytes and retention times of all projects, the oldest first.
    """
    with services().installation.begin() as session:
        stored = count_stored(session)
        projects = session.scalars(sa.select(Project).order_by(Project.created_at, Project.id))
        described = [_describe(project, stored) for project in projects]
        return as_json(ProjectsAnswer(projects=described))


@blueprint.put("/v1/project/retention", responses={200: ProjectAnswer})
@requires(Scope.ADMIN)
@may_raise(InvalidRetention)
def change_retention(body: RetentionRequest) -> Response:
    """Change for how long the project keeps data.

    Data that is older is deleted within an hour, permanently.
    """
    if any(days is not None and not 0 <= days <= _MAX_DAYS for days in body.days.values()):
        raise InvalidRetention(parameter="days")
    with services().database.begin() as session:
        project = session.get_one(Project, identity().project_id, with_for_update=True)
        changed = {**project.retention, **{str(kind): days for kind, days in body.days.items()}}
        project.retention = {kind: days for kind, days in changed.items() if days is not None}
        note(retention=str(project.retention))
        session.flush()
        return as_json(_describe(project, count_stored(session, project.id)))


def _describe(project: Project, stored: Mapping[UUID, Stored]) -> ProjectAnswer:
    settings = services().settings
    return ProjectAnswer(
        id=project.id,
        name=project.name,
        created_at=project.created_at,
        **stored.get(project.id, Stored())._asdict(),
        retention=[
            RetentionAnswer(
                kind=kind,
                days=days_kept(kind, project.retention, settings),
                is_own=kind in project.retention,
            )
            for kind in Retained
        ],
    )
