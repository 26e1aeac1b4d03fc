"""Which project a command is about: `--project`, by default the first one."""

from typing import Annotated
from uuid import UUID

import typer

from shared.access.keys import find_project
from shared.database import Database
from shared.settings import Settings

InProject = Annotated[str, typer.Option("--project", help="The project.")]


def open_project(settings: Settings, name: str) -> tuple[Database, UUID]:
    """Return the database, limited to a project, and the project's id; raise `NotFound`."""
    database = Database.from_settings(settings)
    with database.begin() as session:
        project_id = find_project(session, name)
    return database.of_project(project_id), project_id
