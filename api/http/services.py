"""What the API's views work with: one set a process, built by `create_app` and reached through the application."""

import threading
from dataclasses import dataclass, field
from uuid import UUID

from flask import current_app, g
from prometheus_client import CollectorRegistry

from api.http.keyring import Keyring
from shared.database import Database
from shared.intake.receive import Intake
from shared.object_store import ObjectStore
from shared.processes.readiness import Readiness, storing
from shared.queue.hints import Hints
from shared.settings import Settings

#: Under which name the application keeps them.
NAME = "carina"
#: Each looks at the database twice a second.
_MOST_LONG_POLLS = 200


@dataclass(frozen=True)
class Services:
    """The process' connections and the state that its requests share. Safe to share between threads."""

    settings: Settings
    #: The rows of all projects, for what is not done for one of them. Views have `database`.
    installation: Database
    store: ObjectStore
    hints: Hints
    keyring: Keyring
    #: What `/metrics` shows.
    registry: CollectorRegistry
    readiness: Readiness
    #: Taken by each long poll, so that these can never hold every request thread.
    long_polls: threading.BoundedSemaphore
    #: Set when the process is to end: long polls return at once.
    stopping: threading.Event = field(default_factory=threading.Event)

    @classmethod
    def from_settings(cls, settings: Settings) -> "Services":
        """Build the services; nothing is connected to before it is needed."""
        database, store = Database.from_settings(settings), ObjectStore(settings)
        hints = Hints(settings, database)
        return cls(
            settings=settings,
            installation=database,
            store=store,
            hints=hints,
            keyring=Keyring(database),
            registry=CollectorRegistry(),
            readiness=Readiness(storing(database, store), wanted={"redis": hints.check}),
            long_polls=threading.BoundedSemaphore(min(_MOST_LONG_POLLS, max(1, settings.api_threads // 2))),
        )

    @property
    def database(self) -> Database:
        """The rows of the project of this request's key; the database keeps to it when the request is over.

        Raises `AttributeError` where there is no key, as in public views: these say `installation`.
        """
        return self.installation.of_project(g.identity.project_id)

    def close(self) -> None:
        """Close every connection."""
        self.installation.close()
        self.store.close()
        self.hints.close()

    def intake(
        self,
        project_id: UUID,
        *,
        priority: int = 5,
        model_id: UUID | None = None,
        submission_id: UUID | None = None,
        key_id: UUID | None = None,
    ) -> Intake:
        """Return the way in for a project's files; raise `NotFound` when there is no such model."""
        return Intake(
            self.settings,
            self.database,
            self.store,
            self.hints,
            project_id,
            priority=priority,
            model_id=model_id,
            submission_id=submission_id,
            key_id=key_id,
        )


def services() -> Services:
    """Return the services of the application that handles this request."""
    found: Services = current_app.extensions[NAME]
    return found
