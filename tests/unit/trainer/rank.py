"""What torchrun starts on each rank for `test_fit`: FOLDER IMAGES."""

import faulthandler
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import distributed

from shared.training.config import TrainingConfig
from tests.tiny_images import card_of, read, tiny_dataset
from tests.waiting import DEADLINE_S
from trainer.fit import Progress, Snapshot, SyncBatchNormUnavailable, fit
from trainer.ranks import Ranks, joined
from trainer.task import Interrupted

# A rank that hangs ends with the traceback of each thread in the log.
faulthandler.dump_traceback_later(2 * DEADLINE_S, exit=True)
folder, images = Path(sys.argv[1]), int(sys.argv[2])
dataset = tiny_dataset(images)
config = TrainingConfig.model_validate_json((folder / "config.json").read_text())
exchanges: list[str] = []


class Listener:
    """Remembers the losses and the steps of the checkpoints, and asks to stop in one step."""

    def __init__(self, stop_in_step: int = 0) -> None:
        self.losses: list[float] = []
        self.saved: list[int] = []
        self._stop_in_step = stop_in_step

    def load(self) -> None:
        """Begin at the beginning."""

    def is_due(self, progress: Progress) -> bool:
        """Never."""
        return False

    def must_stop(self) -> bool:
        """Stop in the step of the constructor."""
        return len(self.losses) + 1 == self._stop_in_step

    def save(self, snapshot: Snapshot, progress: Progress) -> None:
        """Remember the step."""
        self.saved.append(progress.position.steps_done)

    def check(self, progress: Progress) -> None:
        """Remember the loss."""
        self.losses.append(progress.figures["loss"])


def train(ranks: Ranks, listener: Listener, **changes: object) -> bytes:
    """Train, and return the weights."""
    changed = config.model_copy(update=changes)
    return fit(changed, dataset, card_of(changed, dataset), lambda model: None, read, ranks, listener)[1]


def counted(exchange: Callable[..., Any]) -> Callable[..., Any]:
    """Return a collective operation that is counted."""

    def count(*args: Any, **named: Any) -> Any:
        exchanges.append(exchange.__name__)
        return exchange(*args, **named)

    return count


with joined("cpu") as ranks:
    for name in ("all_reduce", "all_gather", "all_gather_object", "broadcast", "broadcast_object_list", "barrier"):
        setattr(distributed, name, counted(getattr(distributed, name)))
    through = Listener()
    weights = train(ranks, through)
    # One rank is asked to stop, and all stop after the same step.
    stopped = Listener(stop_in_step=2 if ranks.rank == 1 else 0)
    try:
        train(ranks, stopped)
    except Interrupted:
        outcome = [len(stopped.losses), stopped.saved]
    try:
        train(ranks, Listener(), train_batch_norm=True, sync_batch_norm=True)
    except SyncBatchNormUnavailable as error:
        refusal = error.detail
    (folder / f"rank-{ranks.rank}.json").write_text(
        json.dumps({"losses": through.losses, "exchanges": exchanges, "stopped": outcome, "refusal": refusal})
    )
    if ranks.is_first:
        (folder / "weights").write_bytes(weights)
