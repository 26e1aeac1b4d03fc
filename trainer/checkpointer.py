"""The checkpoints of a training run, and its progress, curve and event file: see `fit.Checkpointer`."""

import hashlib
import io
import math
import resource
import sys
import threading
import time

import structlog
import torch

from shared.object_store import checkpoint_key, result_key
from shared.tables import TrainingRun
from shared.training.config import TrainingConfig
from shared.training.tasks import update_task
from trainer.checkpoint_writer import CheckpointWriter
from trainer.curve import AP40, Curve
from trainer.engine import NonFiniteLoss
from trainer.event_file import EventFile
from trainer.fit import Progress, Snapshot
from trainer.machine_cache import MachineCache
from trainer.ranks import Ranks
from trainer.rendition_reader import WarmUp
from trainer.task import TaskLost, Work

log = structlog.get_logger()

REPORT_EVERY_S = 1.0
LOG_EVERY_S = 20.0
#: The largest share of a training's time that checkpoints take, if their period is not configured.
MAX_OVERHEAD = 0.02
#: The most work that a killed training loses, unless more frequent checkpoints would take more than `MAX_OVERHEAD`.
MAX_LOST_S = 120.0


class RunCheckpointer:
    """Decides when to save, reports progress, and loads the last checkpoint. Only the first rank writes."""

    def __init__(
        self,
        work: Work,
        ranks: Ranks,
        config: TrainingConfig,
        cache: MachineCache,
        warm_up: WarmUp,
        stop: threading.Event,
    ) -> None:
        self._work = work
        self._ranks = ranks
        self._config = config
        self._cache = cache
        self._warm_up = warm_up
        self._stop = stop
        self._saved_at = self._reported_at = self._logged_at = self._began_at = time.monotonic()
        self._images = 0
        self._steps = 0
        #: Steps whose losses are in the event file of an earlier attempt.
        self._steps_before = 0
        #: The steps of the last checkpoint, and the average precision of the best one.
        self._saved_steps = 0
        self._best_ap40 = -math.inf
        self._curve = Curve(work.claim.task_id)
        self._events = EventFile()
        #: The last value of each figure.
        self._figures: dict[str, float | None] = {AP40: None}
        self.writer = CheckpointWriter(work)

    def load(self) -> bytes | None:
        """Return the last checkpoint, as named in the row. One rank of each machine downloads it for the others."""
        with self._work.database.begin() as session:
            row = session.get_one(TrainingRun, self._work.claim.task_id)
            sha256, self._steps_before = row.checkpoint_sha256, row.checkpoint_steps or 0
            self._saved_steps = self._steps_before
            self._best_ap40 = row.best_checkpoint["ap40"] if row.best_checkpoint else -math.inf
            self._figures[AP40] = row.progress.get(AP40)
            if self._ranks.is_first:
                self._curve.go_back(session, self._steps_before)
                self.writer.resume(row)
        if sha256 is None:
            return None
        if not self._ranks.is_first_here:
            self._ranks.gather(None)
        try:
            checkpoint = self._cache.get(checkpoint_key(self._work.claim.task_id, sha256), sha256)
        finally:
            if self._ranks.is_first_here:
                self._ranks.gather(None)
        log.info("training_resumed", steps=self._steps_before)
        return checkpoint

    def must_stop(self) -> bool:
        """Return whether this process was asked to stop."""
        return self._stop.is_set()

    def check(self, progress: Progress) -> None:
        """Record and report progress. Raises `TaskLost`, and the error of a checkpoint that could not be stored."""
        self._images += progress.images
        self._steps += progress.images > 0
        if not self._ranks.is_first:
            return
        _ = self.writer.is_busy
        position = progress.position
        if not progress.images or position.steps_done > self._steps_before:
            self._events.add(progress.figures, position.steps_done)
        self._curve.add(progress.figures)
        self._figures |= progress.figures
        if position.steps_done == self._saved_steps:
            self._mark_best(progress)
        if time.monotonic() - self._reported_at > REPORT_EVERY_S or position.step == 0:
            self._report(progress)

    def is_due(self, progress: Progress) -> bool:
        """Return whether to save now.

        That is after an epoch and when the last checkpoint is too old, if the cost of all checkpoints allows it; and
        after a measurement that is the best one.
        """
        if not progress.images:
            is_saved = progress.position.steps_done == self._saved_steps
            return not is_saved and progress.figures.get(AP40, -math.inf) > self._best_ap40
        if self.writer.is_busy:
            return False
        now = time.monotonic()
        age_s = now - self._saved_at
        epoch_ended = progress.position.step == 0
        if self._config.checkpoint_every_min is not None:
            return epoch_ended or age_s > 60 * self._config.checkpoint_every_min
        is_cheap = self.writer.cost_s <= MAX_OVERHEAD * (now - self._began_at)
        return is_cheap and (epoch_ended or age_s + self.writer.written_s > MAX_LOST_S)

    def save(self, snapshot: Snapshot, progress: Progress) -> None:
        """Copy the state to memory, and store it in the thread of the writer, unless this step is stored already."""
        if progress.position.steps_done == self._saved_steps:
            return
        self._saved_at = time.monotonic()
        self._saved_steps = progress.position.steps_done
        encode = snapshot()
        stalled_s = time.monotonic() - self._saved_at
        self.writer.write(encode, self._saved_steps, self._events.content(), stalled_s)
        self._mark_best(progress)

    def _mark_best(self, progress: Progress) -> None:
        """Keep the checkpoint of this step if a measurement of it is the best one."""
        ap40 = progress.figures.get(AP40, -math.inf)
        if ap40 > self._best_ap40:
            self._best_ap40 = ap40
            self.writer.mark_best(progress.position.steps_done, ap40)

    def store_events(self) -> dict[str, str]:
        """Store the event file with all steps. Returns the digests of all attempts."""
        return self.writer.put_events(self._events.content())

    def keep_batch(self, error: NonFiniteLoss) -> NonFiniteLoss:
        """Store the batches of the failed step for inspection. Returns the error with their keys."""
        buffer = io.BytesIO()
        torch.save({"image_ids": error.image_ids, "batches": [vars(batch) for batch in error.batches]}, buffer)
        content = buffer.getvalue()
        key = result_key(hashlib.sha256(content).hexdigest(), "pt")
        self._work.store.put(key, content)
        return error.kept_under(self._ranks.gather(key))

    def _report(self, progress: Progress) -> None:
        now = time.monotonic()
        elapsed_s = now - self._began_at
        position = progress.position
        epochs_done = position.epoch + position.step / progress.steps_in_epoch
        steps_left = (self._config.epochs - epochs_done) * progress.steps_in_epoch
        figures = {
            "epoch": position.epoch,
            "epochs": self._config.epochs,
            "step": position.step,
            "steps_in_epoch": progress.steps_in_epoch,
            "steps_done": position.steps_done,
            "ranks": self._ranks.world,
            **{name: value and round(value, 6) for name, value in self._figures.items()},
            "images_per_s": round(self._images / elapsed_s, 3),
            "memory_bytes": _peak_memory_bytes(self._ranks.device),
            "images_cached": self._warm_up.done,
            "images_to_cache": self._warm_up.total,
            "eta_s": round(steps_left * elapsed_s / max(self._steps, 1)),
        }
        with self._work.database.begin() as session:
            if not update_task(session, self._work.claim, progress=figures):
                raise TaskLost
            self._curve.write(session, step=position.steps_done, epoch=round(epochs_done, 4))
        self._reported_at = now
        if now - self._logged_at > LOG_EVERY_S or position.step == 0:
            self._logged_at = now
            log.info("training", **figures)


def _peak_memory_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
