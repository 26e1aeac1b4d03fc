"""Following a task of the trainer until its end, under a progress bar."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

import typer
from rich.progress import BarColumn, TextColumn

from api.contract.datasets import DatasetAnswer
from api.contract.schedules import GateDecisionAnswer
from api.contract.training import EvaluationAnswer, TaskAnswer, TrainingAnswer
from deploy.cli.console import complain, err, progress_of, remark
from deploy.cli.exits import Exit
from shared.vocabulary.states import TaskState, WorkerKind

if TYPE_CHECKING:  # the HTTP client is only loaded by the commands that use it
    from api.client import Carina

Followed = TypeVar("Followed", bound=TaskAnswer)

#: Between two looks at a task; the trainer reports about once a second.
POLL_S = 1.0
#: A trainer that is just starting is not missed.
MISSED_AFTER_S = 3.0
_NAMES: dict[type[TaskAnswer], str] = {
    DatasetAnswer: "import",
    EvaluationAnswer: "evaluation",
    GateDecisionAnswer: "decision",
    TrainingAnswer: "training",
}


@dataclass(frozen=True)
class HowFar:
    """The values of the progress bar."""

    done: float
    #: None: not known.
    total: float | None
    words: str


def follow(client: "Carina", task: Followed, look: Callable[[], Followed]) -> Followed:
    """Show the progress of a task until its end; return it as it is then. Exits where it has no result."""
    began, warned = time.monotonic(), False
    columns = (TextColumn("{task.description:<11}"), BarColumn(), TextColumn("{task.fields[words]}"))
    with progress_of(*columns) as progress:
        bar = progress.add_task(_NAMES[type(task)], total=None, words="")
        while True:
            how_far = measure(task)
            progress.update(bar, completed=how_far.done, total=how_far.total, words=how_far.words)
            if task.state.is_final:
                break
            is_waiting = task.state in (TaskState.QUEUED, TaskState.INTERRUPTED)
            if not warned and is_waiting and time.monotonic() - began > MISSED_AFTER_S:
                warned = True
                if not any(worker.stage == WorkerKind.TRAIN and worker.alive for worker in client.queue().workers):
                    remark("No trainer is alive: start one with `carina trainer`.")
            time.sleep(POLL_S)
            task = look()
    require_success(task)
    return task


@contextmanager
def may_leave(advice: str) -> Iterator[None]:
    """Let Ctrl-C end the watching, not the task; `advice` says how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        err.print(f"\nIt goes on: {advice}.", markup=False)
        raise typer.Exit(Exit.INTERRUPTED) from None


def require_success(task: TaskAnswer) -> None:
    """Say why a task that has ended has no result, if so, and exit."""
    if task.state != TaskState.SUCCEEDED:
        why = f": {task.code}: {task.reason}" if task.code else ""
        complain(f"{_NAMES[type(task)]} {task.id} is {task.state}{why}")
        raise typer.Exit(Exit.NO_RESULT)


def measure(task: TaskAnswer) -> HowFar:
    """Return how far a task is, in the words of its kind."""
    done = task.progress
    match task:
        case _ if task.state == TaskState.QUEUED:
            return HowFar(0, None, "waiting for a trainer")
        case _ if task.state == TaskState.INTERRUPTED:
            why = f" ({task.code})" if task.code else ""
            return HowFar(0, None, f"interrupted{why}; waiting for a trainer")
        case GateDecisionAnswer():
            return HowFar(0, 1, _ended(task) or "comparing with the active model")
        case _ if not done or (isinstance(task, TrainingAnswer) and "epoch" not in done):
            before = f"; the attempt before ended with {task.code}" if task.code else ""
            return HowFar(0, None, _ended(task) or done.get("waiting", "starting") + before)
        case TrainingAnswer():
            words = (
                f"epoch {min(done['epoch'] + 1, done['epochs'])}/{done['epochs']}  loss {done.get('loss', 0):.3f}  "
                f"lr {done.get('learning_rate', 0):.2g}  {done['images_per_s']:.1f} images/s  "
                f"{timedelta(seconds=done['eta_s'])} left"
            )
            if done.get("images_cached", 0) < done.get("images_to_cache", 0):
                words += f"  {done['images_cached']:,} of {done['images_to_cache']:,} images cached"
            return HowFar(done["steps_done"], done["epochs"] * done["steps_in_epoch"], _ended(task) or words)
        case EvaluationAnswer():
            words = f"computing {done['computing']}" if "computing" in done else f"{done.get('images', 0)} images"
            return HowFar(done.get("images", 0), done.get("images_total"), _ended(task) or words)
    failed = f"  {done['failed']} failed" if done.get("failed") else ""
    words = f"{done['what']} {done['done']:,} of {done['total']:,}{failed}"
    return HowFar(done["done"], done["total"], _ended(task) or words)


def _ended(task: TaskAnswer) -> str | None:
    return task.state if task.state.is_final else None
