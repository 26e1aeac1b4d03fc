"""Stores the checkpoints of a training in a thread, while the ranks continue."""

import hashlib
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import structlog

from shared.object_store import checkpoint_key, result_key
from shared.tables import TrainingRun
from shared.training.tasks import update_task
from trainer.task import TaskLost, Work

log = structlog.get_logger()


@dataclass(frozen=True)
class _Named:
    """The objects that the row of a training names."""

    last: str | None = None
    last_steps: int | None = None
    #: `sha256`, `steps` and `ap40` of the checkpoint with the best average precision.
    best: dict[str, Any] | None = None
    #: SHA-256 of the event file of each attempt.
    events: dict[str, str] = field(default_factory=dict)


class CheckpointWriter:
    """Stores checkpoints one after the other: the last one and the best one are kept.

    The row names only objects that are completely stored: they are stored before the row is changed, and older ones are
    deleted after. So the process can be killed at any line.
    """

    def __init__(self, work: Work) -> None:
        self._work = work
        self._run_id = work.claim.task_id
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoints")
        self._pending: list[Future[None]] = []
        self._named = _Named()
        #: Seconds until the row named the last checkpoint.
        self.written_s = 0.0
        #: Seconds that all checkpoints of this process have taken from the training.
        self.cost_s = 0.0

    def resume(self, row: TrainingRun) -> None:
        """Continue with the objects of a row. Deletes checkpoints that a killed attempt stored and did not name."""
        self._named = _Named(row.checkpoint_sha256, row.checkpoint_steps, row.best_checkpoint, dict(row.events))
        stored = self._work.store.keys(checkpoint_key(self._run_id, "").removesuffix(".pt"))
        for key in set(stored) - self._keys(self._named):
            self._work.store.delete(key)

    @property
    def is_busy(self) -> bool:
        """Return whether something is still to be stored. Raises the error that has ended a write."""
        while self._pending and self._pending[0].done():
            self._pending.pop(0).result()
        return bool(self._pending)

    def write(self, encode: Callable[[], bytes], steps: int, events: bytes, stalled_s: float) -> None:
        """Store a checkpoint and the event file up to it. The ranks have waited `stalled_s` for the snapshot."""
        self._pending.append(self._thread.submit(self._write, encode, steps, events, stalled_s, time.monotonic()))

    def mark_best(self, steps: int, ap40: float) -> None:
        """Keep the last checkpoint, which is of these steps, as the best one from now on."""
        self._pending.append(self._thread.submit(self._mark_best, steps, ap40))

    def finish(self) -> None:
        """Wait until everything is stored. Raises the error of a write."""
        self._thread.shutdown()
        while self.is_busy:
            pass

    def put_events(self, content: bytes) -> dict[str, str]:
        """Store the event file of this attempt. Returns the digests of all attempts."""
        sha256 = hashlib.sha256(content).hexdigest()
        self._work.store.put(result_key(sha256, "tfevents"), content)
        return self._named.events | {str(self._work.claim.attempt): sha256}

    def delete_events_except(self, events: dict[str, str]) -> None:
        """Delete the event file of this attempt that `events` has replaced."""
        for key in self._keys(self._named) - self._keys(replace(self._named, events=events)):
            self._work.store.delete(key)

    # --- in the thread ---------------------------------------------------------------------------------------------

    def _write(
        self, encode: Callable[[], bytes], steps: int, events: bytes, stalled_s: float, snapshot_at: float
    ) -> None:
        used_s = time.thread_time()
        checkpoint = encode()
        sha256 = hashlib.sha256(checkpoint).hexdigest()
        self._work.store.put(checkpoint_key(self._run_id, sha256), checkpoint)
        named = replace(self._named, last=sha256, last_steps=steps, events=self.put_events(events))
        self._name(named, losses=0)
        self.written_s = time.monotonic() - snapshot_at
        cost_s = stalled_s + time.thread_time() - used_s
        self.cost_s += cost_s
        log.info(
            "checkpoint_saved",
            steps=steps,
            bytes=len(checkpoint),
            cost_s=round(cost_s, 3),
            written_s=round(self.written_s, 3),
        )

    def _mark_best(self, steps: int, ap40: float) -> None:
        self._name(replace(self._named, best={"sha256": self._named.last, "steps": steps, "ap40": ap40}))

    def _name(self, named: _Named, **values: Any) -> None:
        """Change the row, then delete the objects that it names no longer. Raises `TaskLost`."""
        before, after = self._keys(self._named), self._keys(named)
        if named.best is not None:
            values["best_checkpoint"] = named.best
        values |= {"checkpoint_sha256": named.last, "checkpoint_steps": named.last_steps, "events": named.events}
        with self._work.database.begin() as session:
            is_ours = update_task(session, self._work.claim, **values)
        for key in before - after if is_ours else after - before:
            self._work.store.delete(key)
        if not is_ours:
            raise TaskLost
        self._named = named

    def _keys(self, named: _Named) -> set[str]:
        """Return the keys of both checkpoints, and of the event file of this attempt."""
        checkpoints = (named.last, named.best and named.best["sha256"])
        events = named.events.get(str(self._work.claim.attempt))
        return {checkpoint_key(self._run_id, sha256) for sha256 in checkpoints if sha256} | (
            {result_key(events, "tfevents")} if events else set()
        )
