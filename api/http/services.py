"""The connections and shared state of the API's views: one set per process, built by `create_app`."""

import os
import threading
from dataclasses import dataclass, field
from uuid import UUID

from flask import current_app, g
from prometheus_client import CollectorRegistry

from api.http.keyring import Keyring
from shared.database import Database
from shared.intake.receive import Intake
from shared.object_store import ObjectStore
from shared.processes.notice_listener import NoticeListener
from shared.processes.readiness import Readiness, storing
from shared.queue.hints import Hints
from shared.settings import Settings

#: Their name in the application's extensions.
NAME = "carina"
#: Limits the load on the database: behind a pooler, each long poll queries it twice a second.
_MAX_LONG_POLLS = 200


@dataclass(frozen=True)
class Services:
    """The process's connections and the state that requests share. Thread-safe."""

    settings: Settings
    #: Access to the rows of all projects, for work that belongs to no project. Views use `database`.
    installation: Database
    store: ObjectStore
    hints: Hints
    keyring: Keyring
    #: The metrics of `/metrics`.
    registry: CollectorRegistry
    readiness: Readiness
    #: Wakes requests that wait for a change.
    notices: NoticeListener
    #: Held by each long poll, so that long polls cannot use all request threads.
    long_polls: threading.BoundedSemaphore
    #: Held while a picture is drawn: more at a time than cores would only take more memory.
    drawing: threading.BoundedSemaphore = field(
        default_factory=lambda: threading.BoundedSemaphore(len(os.sched_getaffinity(0)))
    )
    #: Set when the process stops: long polls return at once.
    stopping: threading.Event = field(default_factory=threading.Event)

    @classmethod
    def from_settings(cls, settings: Settings) -> "Services":
        """Build the services. Connections are opened when first needed."""
        database, store = Database.from_settings(settings, "api"), ObjectStore(settings)
        hints = Hints(settings, database)
        return cls(
            settings=settings,
            installation=database,
            store=store,
            hints=hints,
            keyring=Keyring(database),
            registry=CollectorRegistry(),
            notices=NoticeListener(database),
            readiness=Readiness(storing(database, store), wanted={"redis": hints.check}),
            long_polls=threading.BoundedSemaphore(min(_MAX_LONG_POLLS, max(1, settings.api_threads // 2))),
        )

    @property
    def database(self) -> Database:
        """Access to the rows of the project of this request's key, also after the request has ended.

        Raises `AttributeError` if there is no key, as in public views, which use `installation`.
        """
        return self.installation.of_project(g.identity.project_id)

    def close(self) -> None:
        """Close every connection."""
        self.notices.close()
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
        """Return the intake of a project's files; raise `NotFound` if the model does not exist."""
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
