"""Checkpoints are stored while the training continues, can be killed at any line, and only two of them are kept."""

import hashlib
import signal
import threading
from datetime import timedelta
from functools import partial
from types import FrameType
from typing import Any

import pytest
import torch

from shared.database import Database
from shared.erasure.reconciliation import PARTS, Reconciliation
from shared.object_store import ObjectStore, checkpoint_key, result_key
from shared.settings import Settings
from shared.tables import Dataset, Task, TrainingRun
from shared.training.config import TrainingConfig
from shared.training.tasks import cancel_task, claim_task
from shared.training.trainings import start_training
from shared.vocabulary.states import TaskState
from tests.integration.trainers import trainer, wait_for_task
from tests.ports import free_port
from tests.tiny_dataset import store_dataset
from tests.tiny_images import tiny_config
from tests.waiting import DEADLINE_S, wait_for
from trainer import checkpoint_writer
from trainer.checkpoint_writer import CheckpointWriter
from trainer.checkpointer import MAX_LOST_S, RunCheckpointer
from trainer.fit import Position, Progress
from trainer.ranks import Ranks
from trainer.rendition_reader import RenditionReader, WarmUp
from trainer.task import TaskLost, Work


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


class KilledAtLine:
    """Ends the writer's thread at its n-th line."""

    def __init__(self, number: int) -> None:
        self._left = number

    @property
    def happened(self) -> bool:
        """Whether the thread had that many lines."""
        return self._left <= 0

    def __call__(self, frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code.co_filename != checkpoint_writer.__file__:
            return None
        if event == "line":
            self._left -= 1
            if self._left == 0:
                raise Killed
        return self


@pytest.fixture
def work(settings: Settings, database: Database, store: ObjectStore) -> Work:
    dataset = store_dataset(database, store, count=4)
    with database.begin() as session:
        row = session.get_one(Dataset, dataset.id)
        start_training(session, dataset=row, config=tiny_config(evaluate_split=None))
    with database.begin() as session:
        claim = claim_task(session, "trainer", lease_s=86_400)
    assert claim is not None
    return Work(settings, database, store, claim)


def row_of(work: Work) -> TrainingRun:
    with work.database.begin() as session:
        row = session.get_one(TrainingRun, work.claim.task_id)
        session.expunge(row)
        return row


def stored(work: Work) -> set[str]:
    return {*work.store.keys("checkpoints/"), *(key for key in work.store.keys("results/") if key.endswith("tfevents"))}


def named(row: TrainingRun) -> set[str]:
    digests = {row.checkpoint_sha256, row.best_checkpoint and row.best_checkpoint["sha256"]} - {None}
    return {checkpoint_key(row.id, str(sha256)) for sha256 in digests} | {
        result_key(sha256, "tfevents") for sha256 in row.events.values()
    }


def fsck(work: Work, unused_after: timedelta) -> list[str]:
    """Remove objects that no row names any more; return their keys."""
    reconciliation = Reconciliation(work.database, work.store, unused_after)
    found = [unused.key for part in PARTS for unused in reconciliation.check(part).unused]
    for key in found:
        reconciliation.remove(key)
    return found


def resumed(work: Work) -> CheckpointWriter:
    writer = CheckpointWriter(work)
    writer.resume(row_of(work))
    return writer


def test_a_write_that_is_killed_at_any_line_leaves_a_checkpoint_to_resume_from(work: Work) -> None:
    first = resumed(work)
    first.write(lambda: b"state 0", 1, b"events 0", 0)
    first.mark_best(1, 0.5)
    first.finish()
    for line in range(1, 500):
        number, before = line + 1, row_of(work)
        writer, killed = resumed(work), KilledAtLine(line)
        threading.settrace(killed)  # of threads that begin later, as the writer's
        try:
            writer.write(partial(str.encode, f"state {number}"), number, f"events {number}".encode(), 0)
            wait_for(lambda writer=writer: not writer.is_busy)
            writer.mark_best(number, 0.5 + number / 1000)
            writer.finish()
        except Killed:
            writer.finish()
        finally:
            threading.settrace(None)
        row = row_of(work)
        assert row.checkpoint_sha256 is not None
        assert row.checkpoint_steps in (before.checkpoint_steps, number)
        for key in named(row):
            assert work.store.read(key), "what the row names is stored"
        resumed(work).finish()
        assert {key for key in stored(work) if key.startswith("checkpoints/")} == {
            key for key in named(row) if key.startswith("checkpoints/")
        }
        if not killed.happened:
            break
    else:
        pytest.fail("never written to the end")
    assert line > 20
    # A killed write may leave its event file, which no row has named: the cleanup finds it.
    left = stored(work) - named(row_of(work))
    assert left
    assert set(fsck(work, timedelta(hours=24))) == set(), "a write under way may still name it"
    assert set(fsck(work, timedelta(0))) == left
    assert stored(work) == named(row_of(work))


def test_the_best_and_the_last_checkpoint_and_one_event_file_are_kept(work: Work) -> None:
    writer = resumed(work)
    for step in range(1, 5):
        writer.write(partial(str.encode, f"state {step}"), step, f"events {step}".encode(), 0)
        if step == 2:
            writer.mark_best(step, 0.4)
    writer.finish()
    row = row_of(work)
    assert (row.checkpoint_steps, row.best_checkpoint and row.best_checkpoint["steps"]) == (4, 2)
    contents = {work.store.read(key) for key in stored(work)}
    assert contents == {b"state 2", b"state 4", b"events 4"}
    # The next attempt continues with both, and a better one replaces the best.
    again = resumed(work)
    again.write(lambda: b"state 5", 5, b"events 5", 0)
    again.mark_best(5, 0.5)
    again.finish()
    assert {work.store.read(key) for key in stored(work)} == {b"state 5", b"events 5"}


def test_the_best_checkpoint_is_kept_even_if_none_was_due_at_that_step(work: Work, tmp_path: Any) -> None:
    checkpointer = checkpointer_of(work, tmp_path, tiny_config(checkpoint_every_min=1000))

    def train(steps: int, ap40: float, *, saves: bool) -> None:
        after_epoch, outcome = progress(steps, ends_epoch=True), measured(steps, ap40)
        checkpointer.check(after_epoch)
        if saves:
            checkpointer.save(lambda: partial(str.encode, f"state {steps}"), after_epoch)
        checkpointer.check(outcome)
        if checkpointer.is_due(outcome):
            checkpointer.save(lambda: partial(str.encode, f"state {steps}"), outcome)

    train(1, 0.2, saves=False)
    train(2, 0.1, saves=True)
    train(3, 0.5, saves=True)
    train(4, 0.4, saves=False)
    checkpointer.writer.finish()
    row = row_of(work)
    assert row.best_checkpoint == {"sha256": row.checkpoint_sha256, "steps": 3, "ap40": 0.5}
    checkpointer = checkpointer_of(work, tmp_path, tiny_config(checkpoint_every_min=1000))
    train(4, 0.45, saves=True)
    train(5, 0.6, saves=False)
    train(6, 0.55, saves=True)
    checkpointer.writer.finish()
    assert {work.store.read(key) for key in stored(work) if key.startswith("checkpoints/")} == {b"state 5", b"state 6"}
    best = row_of(work).best_checkpoint
    assert best is not None
    assert (best["steps"], best["ap40"]) == (5, 0.6)


def test_a_checkpoint_of_a_cancelled_training_is_not_left_behind(work: Work) -> None:
    writer = resumed(work)
    writer.write(lambda: b"state 1", 1, b"events 1", 0)
    writer.finish()
    before = stored(work)

    def cancelled() -> bytes:
        with work.database.begin() as session:
            cancel_task(session, TrainingRun, work.claim.task_id)
        return b"state 2"

    writer = resumed(work)
    writer.write(cancelled, 2, b"events 2", 0)
    with pytest.raises(TaskLost):
        writer.finish()
    assert stored(work) == before


def progress(steps: int, *, ends_epoch: bool = False) -> Progress:
    return Progress(Position(0, 0 if ends_epoch else steps, steps), 100, 4, {"loss": 1.0})


def measured(steps: int, ap40: float) -> Progress:
    return Progress(Position(1, 0, steps), 100, 0, {"ap40": ap40})


def checkpointer_of(work: Work, tmp_path: Any, config: TrainingConfig) -> RunCheckpointer:
    read = RenditionReader(work.store, tmp_path, 10**6)
    ranks = Ranks(0, 1, torch.device("cpu"))
    checkpointer = RunCheckpointer(work, ranks, config, read.cache, WarmUp(read), threading.Event())
    checkpointer.load()
    return checkpointer


def test_the_ranks_do_not_wait_while_a_checkpoint_is_stored(work: Work, tmp_path: Any) -> None:
    checkpointer = checkpointer_of(work, tmp_path, tiny_config(checkpoint_every_min=1e-6))
    go_on = threading.Event()

    def encode() -> bytes:
        assert go_on.wait(DEADLINE_S)
        return b"state"

    assert checkpointer.is_due(progress(1))
    checkpointer.save(lambda: encode, progress(1))
    for step in range(2, 5):
        checkpointer.check(progress(step))
        assert not checkpointer.is_due(progress(step)), "one at a time"
    assert row_of(work).checkpoint_steps is None
    go_on.set()
    checkpointer.writer.finish()
    assert row_of(work).checkpoint_steps == 1


def test_the_period_follows_from_the_cost(work: Work, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("trainer.checkpointer.time.monotonic", lambda: now)
    checkpointer = checkpointer_of(work, tmp_path, tiny_config())
    writer = checkpointer.writer
    assert checkpointer.is_due(progress(1, ends_epoch=True)), "its cost is not known yet"
    writer.cost_s, writer.written_s = 0.5, 20.0
    now += 24
    assert not checkpointer.is_due(progress(2, ends_epoch=True)), "more than 2% of the time"
    now += 2
    assert checkpointer.is_due(progress(2, ends_epoch=True))
    assert not checkpointer.is_due(progress(2))
    now = 1000 + MAX_LOST_S - writer.written_s + 1
    assert checkpointer.is_due(progress(2)), "a loss is counted from the last complete checkpoint"
    writer.cost_s = 10.0
    assert not checkpointer.is_due(progress(2))
    now = 1000 + 10 / 0.02
    assert checkpointer.is_due(progress(2))


@pytest.mark.parametrize("cost_s", [0.2, 1.5, 6.0])
@pytest.mark.parametrize("epoch_s", [1, 40, 130, 3000])
def test_all_checkpoints_take_at_most_two_percent_and_as_little_as_possible_is_lost(
    work: Work, tmp_path: Any, monkeypatch: pytest.MonkeyPatch, cost_s: float, epoch_s: int
) -> None:
    """A step takes a second, and a checkpoint is stored ten seconds after its step."""
    now, began = 1000.0, 1000.0
    monkeypatch.setattr("trainer.checkpointer.time.monotonic", lambda: now)
    checkpointer = checkpointer_of(work, tmp_path, tiny_config())
    writer = checkpointer.writer
    monkeypatch.setattr(writer, "write", lambda *_: None)
    saved, longest_s = began, 0.0
    for step in range(1, 7200):
        now += 1
        after = progress(step, ends_epoch=step % epoch_s == 0)
        longest_s = max(longest_s, now - saved + 10)
        if checkpointer.is_due(after):
            checkpointer.save(lambda: lambda: b"", after)
            saved, writer.written_s = now, 10
            writer.cost_s += cost_s
    assert writer.cost_s <= 0.02 * (now - began) + cost_s
    assert longest_s <= max(MAX_LOST_S, cost_s / 0.02) + 12


def test_a_checkpoint_that_cannot_be_stored_ends_the_attempt(work: Work, tmp_path: Any) -> None:
    checkpointer = checkpointer_of(work, tmp_path, tiny_config(checkpoint_every_min=1e-6))

    def encode() -> bytes:
        raise MemoryError

    checkpointer.save(lambda: encode, progress(1))
    with pytest.raises(MemoryError):
        checkpointer.writer.finish()


def test_ranks_of_a_machine_download_a_checkpoint_once(
    work: Work, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = resumed(work)
    writer.write(lambda: b"state", 1, b"events", 0)
    writer.finish()
    asked: list[str] = []
    get = ObjectStore.get

    def counted(self: ObjectStore, key: str, *, sha256: str) -> bytes:
        asked.append(key)
        return get(self, key, sha256=sha256)

    monkeypatch.setattr(ObjectStore, "get", counted)
    monkeypatch.setattr(Ranks, "gather", lambda _, value: [value])
    for rank in range(4):
        # Two machines of two ranks; each machine has a cache of its own.
        machines = (0, 0, 1, 1)
        (folder := tmp_path / str(machines[rank])).mkdir(exist_ok=True)
        read = RenditionReader(work.store, folder, 10**6)
        ranks = Ranks(rank, 4, torch.device("cpu"), machines)
        loaded = RunCheckpointer(work, ranks, tiny_config(), read.cache, WarmUp(read), threading.Event()).load()
        assert loaded == b"state"
    assert len(asked) == 2


def test_a_follower_that_must_stop_ends_in_a_checkpoint_of_the_group(
    environ: dict[str, str], settings: Settings, database: Database, store: ObjectStore
) -> None:
    dataset = store_dataset(database, store, count=16)
    with database.begin() as session:
        config = tiny_config(epochs=1000, checkpoint_every_min=1000, evaluate_split=None)
        run = start_training(session, dataset=session.get_one(Dataset, dataset.id), config=config)
        run_id = run.id
    together = {"trainer_nodes": "2", "trainer_rendezvous": f"127.0.0.1:{free_port()}"}

    def is_running(row: Task) -> bool:
        return row.progress.get("steps_done", 0) >= 2

    with trainer(environ, **together), trainer(environ, **together, trainer_node_rank="1") as follower:
        wait_for_task(database, TrainingRun, run_id, is_running, settings)
        assert follower.stop(signal.SIGTERM) == 0
        # The leader may already wait for its group again.
        row = wait_for_task(
            database, TrainingRun, run_id, lambda row: row.state != TaskState.RUNNING or row.attempt > 1, settings
        )
        assert isinstance(row, TrainingRun)
        assert (row.code, row.losses) == (None, 0)
        assert row.checkpoint_steps is not None
        content = store.get(checkpoint_key(run_id, str(row.checkpoint_sha256)), sha256=str(row.checkpoint_sha256))
        assert hashlib.sha256(content).hexdigest() == row.checkpoint_sha256
        assert row.checkpoint_steps >= 2
