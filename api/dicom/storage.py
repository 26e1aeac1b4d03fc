"""Where the associations of a listener store objects: a project, and the servers behind its intake."""

import threading
from dataclasses import dataclass, field
from typing import Self
from uuid import UUID

import sqlalchemy as sa

from shared.database import Database
from shared.errors import SetupError
from shared.intake.receive import HEADER_BYTES, Intake
from shared.object_store import ObjectStore
from shared.queue.hints import Hints
from shared.settings import Settings
from shared.tables import ApiKey, Project


class ListenerMisconfigured(SetupError):
    """The DICOM listener cannot start with these settings."""

    code = "listener_misconfigured"


@dataclass(frozen=True)
class Storage:
    """The project that objects are stored in, and the connections for it. Shared by all associations."""

    settings: Settings
    database: Database
    store: ObjectStore
    hints: Hints
    project_id: UUID
    #: The key whose quota counts; None: no quota does.
    key_id: UUID | None
    #: Set once the process is asked to end: objects are then refused.
    stopping: threading.Event = field(default_factory=threading.Event)

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Find the project and the key; raise `ListenerMisconfigured` and `DatabaseUnavailable`."""
        database = Database.from_settings(settings, "dicom-listener")
        try:
            project_id, key_id = _find_project(settings, database), _find_key(settings, database)
            return cls(settings, database, ObjectStore(settings), Hints(settings, database), project_id, key_id)
        except BaseException:
            database.close()
            raise

    @property
    def max_object_bytes(self) -> int:
        """The size of an image of the most pixels that are allowed, at 32 bits each."""
        return min(self.settings.max_upload_bytes, 4 * self.settings.max_image_pixels + HEADER_BYTES)

    def intake(self) -> Intake:
        """Return the intake of one association."""
        return Intake(self.settings, self.database, self.store, self.hints, self.project_id, key_id=self.key_id)


def _find_project(settings: Settings, database: Database) -> UUID:
    name = settings.dicom_project
    with database.begin() as session:
        project_id = session.scalar(sa.select(Project.id).where(Project.name == name))
    if project_id is None:
        raise ListenerMisconfigured(
            f"There is no project {name!r}, which CARINA_DICOM_PROJECT names: `carina key create` makes one."
        )
    return project_id


def _find_key(settings: Settings, database: Database) -> UUID | None:
    prefix = settings.dicom_key
    if not prefix:
        return None
    with database.begin() as session:
        key_id = session.scalar(sa.select(ApiKey.id).where(ApiKey.prefix == prefix))
    if key_id is None:
        raise ListenerMisconfigured(
            f"There is no API key {prefix!r}, which CARINA_DICOM_KEY names: `carina key list` shows the prefixes."
        )
    return key_id
