"""The project of a key: what it has stored, and for how long it keeps data."""

from datetime import datetime
from uuid import UUID

from pydantic import BaseModel, Field

from shared.bounded import Bounded
from shared.vocabulary.retention import Retained


class RetentionRequest(Bounded):
    """Days after which data is deleted, by kind. Kinds that are left out keep their value."""

    days: dict[Retained, int | None] = Field(
        max_length=len(Retained), description="Days from 1 on; 0: forever; null: as the installation's settings say."
    )


class RetentionAnswer(BaseModel):
    """For how long one kind of data is kept."""

    kind: Retained
    #: 0: forever.
    days: int
    #: Whether the project has a value of its own; otherwise it is that of the installation's settings.
    is_own: bool


class ProjectAnswer(BaseModel):
    """A project."""

    id: UUID
    name: str
    created_at: datetime
    images: int
    #: Bytes that several projects have count for each of them.
    original_bytes: int
    #: Without renditions that were made before their size was recorded.
    rendition_bytes: int
    retention: list[RetentionAnswer]


class ProjectsAnswer(BaseModel):
    """All projects, the oldest first."""

    projects: list[ProjectAnswer]
