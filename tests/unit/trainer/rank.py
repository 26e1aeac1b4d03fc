"""What torchrun starts on each rank for `test_fit`: FOLDER IMAGES."""

import faulthandler
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import distributed

from shared.training.config import TrainingConfig
from tests.recording_checkpointer import RecordingCheckpointer
from tests.tiny_images import card_of, read, tiny_dataset
from tests.waiting import DEADLINE_S
from trainer.fit import SyncBatchNormUnavailable, fit
from trainer.ranks import Ranks, joined
from trainer.task import Interrupted

# A rank that hangs ends with the traceback of each thread in the log.
faulthandler.dump_traceback_later(2 * DEADLINE_S, exit=True)
folder, images = Path(sys.argv[1]), int(sys.argv[2])
dataset = tiny_dataset(images)
config = TrainingConfig.model_validate_json((folder / "config.json").read_text())
exchanges: list[str] = []


def train(ranks: Ranks, checkpointer: RecordingCheckpointer, **changes: object) -> bytes:
    """Train, and return the weights."""
    changed = config.model_copy(update=changes)
    return fit(changed, dataset, card_of(changed, dataset), lambda model: None, read, ranks, checkpointer)[1]


def counted(exchange: Callable[..., Any]) -> Callable[..., Any]:
    """Return a collective operation that is counted."""

    def count(*args: Any, **named: Any) -> Any:
        exchanges.append(exchange.__name__)
        return exchange(*args, **named)

    return count


with joined("cpu") as ranks:
    for name in ("all_reduce", "all_gather", "all_gather_object", "broadcast", "broadcast_object_list", "barrier"):
        setattr(distributed, name, counted(getattr(distributed, name)))
    through = RecordingCheckpointer()
    weights = train(ranks, through)
    # One rank is asked to stop, and all stop after the same step.
    stopped = RecordingCheckpointer(stop_at=2 if ranks.rank == 1 else None)
    try:
        train(ranks, stopped)
    except Interrupted:
        outcome = [len(stopped.progress), [progress.position.steps_done for progress in stopped.saved]]
    try:
        train(ranks, RecordingCheckpointer(), train_batch_norm=True, sync_batch_norm=True)
    except SyncBatchNormUnavailable as error:
        refusal = error.detail
    (folder / f"rank-{ranks.rank}.json").write_text(
        json.dumps({"losses": through.figures(), "exchanges": exchanges, "stopped": outcome, "refusal": refusal})
    )
    if ranks.is_first:
        (folder / "weights").write_bytes(weights)
