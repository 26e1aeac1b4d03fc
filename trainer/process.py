"""`python -m trainer.process KIND ID OWNER ATTEMPT`: does one task under the lease of its trainer.

Exit code 0: the task's row has its final state, or the task was returned to the queue. Any other code: the process
crashed, and the trainer updates the row.
"""

import ctypes
import errno
import importlib
import os
import signal
import sys
import threading
import time
from uuid import UUID

import structlog
from pydantic import ValidationError
from sqlalchemy.orm import Session

from shared.database import Database
from shared.errors import CarinaError, ObjectMissing, PermanentError, TransientError
from shared.log import configure_logging
from shared.object_store import ObjectStore
from shared.processes.scratch import FolderNotOurs, ScratchUnwritable
from shared.settings import SettingsWithoutHints, read_settings
from shared.training.tasks import TaskClaim, finish_task, interrupt_task, lose_task
from shared.vocabulary.states import TaskState
from trainer.task import Interrupted, TaskLost, Work

log = structlog.get_logger()


class MaterialMissing(PermanentError):
    """An object that the task needs (dataset, weights or checkpoint) is no longer in the object store."""

    code = "material_missing"


class UnreadableTask(PermanentError):
    """The task's configuration or the model's card was written by another version of Carina. Start a new task."""

    code = "unreadable_task"


class TaskDefect(PermanentError):
    """The task failed with an error that would occur again."""

    code = "task_defect"


class TrainerUnfit(TransientError):
    """This trainer cannot do the task. Another trainer tries it."""

    code = "trainer_unfit"


class DiskFull(TransientError):
    """The trainer's disk is full. The task continues when there is space."""

    code = "disk_full"
    counts = False


#: The environment variable with the trainer's process id: its tasks exit if the trainer has ended.
TRAINER_PID = "CARINA_TRAINER_PID"
#: The module of each kind of task, with a function `run(work)`.
MODULES = {
    "dataset": "trainer.datasets.importing",
    "training": "trainer.training",
    "evaluation": "trainer.evaluate",
    "gate": "trainer.gate",
}
EXIT_ORPHANED = 75
#: Exceptions that depend only on code and input, so that another attempt would fail in the same way.
REPEATING = (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError)
_MAX_CHARACTERS = 300
#: Of prctl(2): the signal that a process gets when its parent ends.
PR_SET_PDEATHSIG = 1
_WATCH_S = 0.5


def main() -> None:
    """Do the task given on the command line."""
    kind, task_id, owner, attempt = sys.argv[1:5]
    settings = read_settings(SettingsWithoutHints)
    configure_logging(settings.log_level)
    structlog.contextvars.bind_contextvars(task=kind, task_id=task_id)
    if os.environ.get("WORLD_SIZE", "1") != "1":
        structlog.contextvars.bind_contextvars(rank=int(os.environ["RANK"]))
    watch_parents()
    claim = TaskClaim(kind=kind, task_id=UUID(task_id), owner=owner, attempt=int(attempt))
    work = Work(settings, Database.from_settings(settings, "trainer"), ObjectStore(settings), claim)
    try:
        _run(kind, work)
    except TaskLost:
        log.warning("task_lost")
    except Interrupted:
        log.info("task_interrupted")
    except TransientError as error:
        log.warning("task_set_back", code=error.code, detail=error.detail)
        _record_failure(work, error)
    except CarinaError as error:
        defect = error.__cause__ if isinstance(error, TaskDefect) else None
        log.error("task_failed", code=error.code, detail=error.detail, exc_info=defect)
        _record_failure(work, error)


def _run(kind: str, work: Work) -> None:
    """Do the task. An error that would occur again is turned into a permanent one.

    Other errors (of the operating system, of CUDA, of another rank) end the process; the trainer retries the task.
    """
    try:
        importlib.import_module(MODULES[kind]).run(work.in_its_project())
    except ObjectMissing as error:
        raise MaterialMissing from error
    except (ScratchUnwritable, FolderNotOurs) as error:
        raise TrainerUnfit(error.detail) from error
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise DiskFull from error
    except ValidationError as error:
        raise UnreadableTask from error
    except REPEATING as error:
        raise TaskDefect(f"The task met an error that it would meet again: {_describe(error)}.") from error


def _describe(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:_MAX_CHARACTERS]


def watch_parents() -> None:
    """Exit as soon as the parent process or the trainer has ended, because nothing renews the lease then."""
    parent, trainer = os.getppid(), int(os.environ.get(TRAINER_PID, "0"))
    if sys.platform == "linux":
        # The kernel also ends a process that hangs while it holds the GIL.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

    def watch() -> None:
        while os.getppid() == parent and (not trainer or is_alive(trainer)):
            time.sleep(_WATCH_S)
        os._exit(EXIT_ORPHANED)

    threading.Thread(target=watch, name="parents", daemon=True).start()


def is_alive(pid: int) -> bool:
    """Return whether a process with this id exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _record_failure(work: Work, error: CarinaError) -> None:
    """Write the reason of the failure into the task's row. If several ranks fail, the first one to write counts."""
    settings = work.settings

    def change(session: Session) -> bool:
        why = {"code": error.code, "reason": error.public_detail}
        if not isinstance(error, TransientError):
            return finish_task(session, work.claim, TaskState.FAILED, **why)
        if not error.counts:
            return interrupt_task(session, work.claim, pause_s=settings.retry_backoff_s, **why)
        return lose_task(
            session, work.claim, **why, max_attempts=settings.max_attempts, pause_s=settings.retry_backoff_s
        )

    work.database.persist(change, within_s=settings.lease_s / 2)


if __name__ == "__main__":
    main()
