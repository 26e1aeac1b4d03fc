"""A task and its connections, for the process that does it."""

from dataclasses import dataclass, replace
from typing import Any, Self

from sqlalchemy.orm import Session

from shared.database import Database
from shared.object_store import ObjectStore
from shared.settings import Settings
from shared.training.tasks import TaskClaim, finish_task, update_task
from shared.vocabulary.states import TaskState


class TaskLost(Exception):
    """This process no longer owns the task: it was cancelled, or another trainer has it."""


class Interrupted(Exception):
    """The task was asked to stop and will be continued later."""


@dataclass(frozen=True)
class Work:
    """A task with its settings, database, object store and claim."""

    settings: Settings
    database: Database
    store: ObjectStore
    claim: TaskClaim

    def in_its_project(self) -> Self:
        """Return a copy whose sessions are limited to the task's project."""
        with self.database.begin() as session:
            project_id = session.get_one(self.claim.table, self.claim.task_id).project_id
        return replace(self, database=self.database.of_project(project_id))

    def report(self, **progress: Any) -> None:
        """Store the task's progress; call it at most about once a second. Raises `TaskLost`."""
        with self.database.begin() as session:
            if not update_task(session, self.claim, progress=progress):
                raise TaskLost

    def succeed(self, session: Session, **values: Any) -> None:
        """Finish the task in the transaction of its result. Raises `TaskLost`, which rolls the transaction back."""
        if not finish_task(session, self.claim, TaskState.SUCCEEDED, **values):
            raise TaskLost
