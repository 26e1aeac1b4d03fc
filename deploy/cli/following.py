"""Following a task of the trainer until its end, under a progress bar."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar
from uuid import UUID

import sqlalchemy as sa
import typer
from rich.progress import BarColumn, TextColumn
from sqlalchemy.orm import Session

from deploy.cli.clients import EXIT_NO_RESULT
from deploy.cli.console import complain, progress_of, remark
from shared.database import Database
from shared.database.lookup import find_id
from shared.tables import Evaluation, GateDecision, Task, TrainingRun, Worker
from shared.vocabulary.states import Stage, TaskState

Followed = TypeVar("Followed", bound=Task)

#: Between two looks at a row; the trainer writes it about once a second.
POLL_S = 0.5
#: How long the database may be away while somebody watches.
PATIENCE_S = 60.0
#: A trainer that is just starting is none that is missing.
MISSED_AFTER_S = 3.0


@dataclass(frozen=True)
class HowFar:
    """What the progress bar shows."""

    done: float
    #: None: not known.
    total: float | None
    words: str


def follow(database: Database, row: type[Followed], task_id: UUID, show: Callable[[Followed], HowFar]) -> Followed:
    """Show how far a task is until its end; return its row as it is then. Raises `NotFound`."""
    began, warned = time.monotonic(), False
    columns = (TextColumn("{task.description:<11}"), BarColumn(), TextColumn("{task.fields[words]}"))
    with progress_of(*columns) as progress:
        bar = progress.add_task(_name(row), total=None, words="")
        task = read(database, row, task_id)
        while True:
            how_far = _waiting(task) or show(task)
            progress.update(bar, completed=how_far.done, total=how_far.total, words=how_far.words)
            if TaskState(task.state).is_final:
                return task
            if not warned and _waiting(task) and time.monotonic() - began > MISSED_AFTER_S:
                warned = True
                if not database.persist(_any_trainer, within_s=PATIENCE_S):
                    remark("No trainer is alive: start one with `carina trainer`.")
            time.sleep(POLL_S)
            task = read(database, row, task_id, within_s=PATIENCE_S)


def read(database: Database, row: type[Followed], task: UUID | str, *, within_s: float = 0) -> Followed:
    """Return a task's row, to be read after its session, by its id or the beginning of it.

    Raises `NotFound`, `AmbiguousName`, and `DatabaseUnavailable` after so long.
    """

    def find(session: Session) -> Followed:
        found = session.get_one(row, find_id(session, _name(row), str(task)))
        session.expunge(found)
        return found

    return database.persist(find, within_s=within_s)


def require_success(task: Task) -> None:
    """Say why a task that has come to its end has no result, if so, and exit."""
    if task.state != TaskState.SUCCEEDED:
        why = f": {task.code}: {task.reason}" if task.code else ""
        complain(f"{_name(type(task))} {task.id} is {task.state}{why}")
        raise typer.Exit(EXIT_NO_RESULT)


def how_far_is_training(run: TrainingRun) -> HowFar:
    """Say how far a training is."""
    done = run.progress
    if not done:
        return HowFar(0, None, _ended(run) or "starting")
    total = done["epochs"] * done["steps_in_epoch"]
    left = timedelta(seconds=done["eta_s"])
    words = (
        f"epoch {min(done['epoch'] + 1, done['epochs'])}/{done['epochs']}  loss {done.get('loss', 0):.3f}  "
        f"lr {done.get('learning_rate', 0):.2g}  {done['images_per_s']:.1f} images/s  {left} left"
    )
    return HowFar(done["steps_done"], total, _ended(run) or words)


def how_far_is_evaluation(evaluation: Evaluation) -> HowFar:
    """Say how far an evaluation is."""
    done = evaluation.progress
    images, total = done.get("images", 0), done.get("images_total")
    words = f"computing {done['computing']}" if "computing" in done else f"{images} images"
    return HowFar(images, total, _ended(evaluation) or (words if done else "starting"))


def how_far_is_decision(decision: GateDecision) -> HowFar:
    """Say how far a gate's decision is; it waits for its evaluations."""
    return HowFar(0, 1, _ended(decision) or "comparing with the active model")


def _name(row: type[Task]) -> str:
    """What people call it: a training, an evaluation, a decision."""
    return {TrainingRun: "training", GateDecision: "decision"}.get(row, str(row.__tablename__))


def _waiting(task: Task) -> HowFar | None:
    match TaskState(task.state):
        case TaskState.QUEUED:
            return HowFar(0, None, "waits for a trainer")
        case TaskState.INTERRUPTED:
            why = f" ({task.code})" if task.code else ""
            return HowFar(0, None, f"interrupted{why}; waits for a trainer")
    return None


def _ended(task: Task) -> str | None:
    return task.state if TaskState(task.state).is_final else None


def _any_trainer(session: Session) -> bool:
    from shared.queue.hints import is_alive  # brings Celery along

    return bool(session.scalar(sa.select(sa.exists().where(Worker.stage == Stage.TRAIN, is_alive()))))
