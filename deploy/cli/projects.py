"""The project of an import from this machine, which goes to the database itself."""

import os
from uuid import UUID

from shared.access.keys import FIRST_PROJECT, find_project, open_project, verify_key
from shared.database import Database
from shared.settings import ClientSettings, Settings, read_settings
from shared.settings.secret_files import is_given


def connect_to_project(settings: Settings, name: str | None) -> tuple[Database, UUID]:
    """Return the database, limited to a project, and the project's id; raise `NotFound` and `Unauthorized`."""
    database = Database.from_settings(settings)
    with database.begin() as session:
        if name is not None:
            project_id = find_project(session, name)
        elif is_given("CARINA_API_KEY", os.environ):
            key = read_settings(ClientSettings).api_key.get_secret_value()
            project_id = verify_key(session, key).project_id
        else:
            project_id = open_project(session, FIRST_PROJECT)
    return database.of_project(project_id), project_id
