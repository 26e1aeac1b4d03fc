"""The project of the key: its bytes, and for how long it keeps data."""

from collections.abc import Mapping

from api.client.connection import Connection
from api.contract.projects import ProjectAnswer, ProjectsAnswer, RetentionRequest
from shared.vocabulary.retention import Retained


class Projects(Connection):
    """Projects."""

    def project(self) -> ProjectAnswer:
        """Return the project of the key."""
        return self._get(ProjectAnswer, "/v1/project")

    def projects(self) -> list[ProjectAnswer]:
        """Return all projects, which needs a key with the scope `system`."""
        return self._get(ProjectsAnswer, "/v1/projects").projects

    def change_retention(self, days: Mapping[Retained, int | None]) -> ProjectAnswer:
        """Change for how long the project keeps data, in days; None: as the installation does. Needs `admin`."""
        request = RetentionRequest(days=dict(days))
        return self._read(ProjectAnswer, self._request("PUT", "/v1/project/retention", body=request))
