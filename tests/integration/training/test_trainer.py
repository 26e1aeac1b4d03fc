"""A training that is stopped, killed and handed on ends with the very model that an undisturbed one ends with."""

import json
import signal
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import sqlalchemy as sa
import torch
from tensorboard.compat.proto.event_pb2 import Event

from shared.database import Database
from shared.object_store import ObjectStore, checkpoint_key, result_key
from shared.object_store.incoming import Incoming
from shared.settings import Settings
from shared.tables import Dataset, Evaluation, GateDecision, Model, Task, TrainingRun
from shared.training.config import EvaluationConfig, GateConfig, TrainingConfig
from shared.training.tasks import cancel_task, resume_training
from shared.training.trainings import start_training
from shared.vocabulary.states import TaskState
from tests.integration.trainers import trainer, wait_for_task
from tests.ports import free_port
from tests.tiny_dataset import store_dataset
from tests.tiny_images import tiny_config
from tests.waiting import wait_for, wait_until_gone
from workers.cleanup import Cleanup

#: A checkpoint after every step.
OFTEN = 1e-4


@pytest.fixture
def dataset(database: Database, store: ObjectStore) -> Dataset:
    return store_dataset(database, store, count=16)


def begin(database: Database, dataset: Dataset, config: TrainingConfig, gate: GateConfig | None = None) -> TrainingRun:
    with database.begin() as session:
        run = start_training(session, dataset=session.get_one(Dataset, dataset.id), config=config, gate=gate)
        session.flush()
        session.expunge(run)
        return run


def is_final(row: Task) -> bool:
    return TaskState(row.state).is_final


def steps(row: Task) -> int:
    assert isinstance(row, TrainingRun)
    return row.checkpoint_steps or 0


def steps_in(store: ObjectStore, sha256: str) -> Iterator[int]:
    """Yield the steps with a loss in an event file: records of a length, its check, the content and its check."""
    content = store.get(result_key(sha256, "tfevents"), sha256=sha256)
    at = 0
    while at < len(content):
        (size,) = struct.unpack_from("<Q", content, at)
        event = Event.FromString(content[at + 12 : at + 12 + size])
        if any(value.tag == "loss" for value in event.summary.value):
            yield event.step
        at += 16 + size


def weights_of(database: Database, row: Task) -> str:
    assert isinstance(row, TrainingRun)
    assert row.state == TaskState.SUCCEEDED, (row.code, row.reason, row.log_tail)
    with database.begin() as session:
        return session.get_one(Model, row.model_id).weights_sha256


def checkpoints(store: ObjectStore, run: TrainingRun) -> set[str]:
    return set(store.keys(f"checkpoints/{run.id}"))


def named(database: Database, run: TrainingRun) -> set[str]:
    """The keys of the last and the best checkpoint in the run's row."""
    with database.begin() as session:
        row = session.get_one(TrainingRun, run.id)
        digests = (row.checkpoint_sha256, row.best_checkpoint and row.best_checkpoint["sha256"])
        return {checkpoint_key(run.id, sha256) for sha256 in digests if sha256}


def test_a_run_survives_every_kind_of_death_and_ends_the_same(
    environ: dict[str, str],
    settings: Settings,
    database: Database,
    store: ObjectStore,
    dataset: Dataset,
    tmp_path: Path,
) -> None:
    # Long enough that it still runs after the last disturbance, however slowly this test goes on.
    config = tiny_config(epochs=15, batch_size=3, checkpoint_every_min=OFTEN, evaluate_split=None)
    disturbed, undisturbed = begin(database, dataset, config), begin(database, dataset, config)

    def reach(step: int) -> TrainingRun:
        row = wait_for_task(
            database, TrainingRun, disturbed.id, lambda row: steps(row) >= step or is_final(row), settings
        )
        assert isinstance(row, TrainingRun)
        assert row.state == TaskState.RUNNING
        return row

    with trainer(environ) as first:
        reach(2)
        wait_for_task(
            database, TrainingRun, disturbed.id, lambda row: "checkpoint_saved" in (row.log_tail or ""), settings
        )
        first.rank().send_signal(signal.SIGKILL)
        at = reach(5)
        assert at.code is None or at.code == "trainer_process_lost"
        first.launcher().send_signal(signal.SIGKILL)
        at = reach(8)
        family = psutil.Process(first.process.pid).children(recursive=True)
        first.stop(signal.SIGKILL)
        wait_until_gone(family)  # nothing goes on without the trainer
    with trainer(environ) as second:
        # At once, though the lease of the first trainer has not ended: it ran on this machine, and is gone.
        at = reach(11)
        assert at.attempt == 4
        assert second.stop() == 0
        stopped = wait_for_task(database, TrainingRun, disturbed.id, lambda row: row.lease_owner is None, settings)
        assert stopped.state == TaskState.INTERRUPTED
        assert stopped.code is None
    with database.begin() as session:
        assert session.get_one(TrainingRun, undisturbed.id).attempt == 0, "it was asked for later, and waits"
    # torchrun takes its time to exit after success.
    slow = (
        "import atexit, pathlib, sys, time\n"
        "def end():\n    time.sleep(5)\n    pathlib.Path(__file__).with_name('exited').touch()\n"
        "if 'torch.distributed.run' in sys.orig_argv:\n    atexit.register(end)\n"
    )
    (tmp_path / "sitecustomize.py").write_text(slow)
    with trainer(environ | {"PYTHONPATH": str(tmp_path)}) as third:
        ended = wait_for_task(database, TrainingRun, disturbed.id, is_final, settings)
        other = wait_for_task(database, TrainingRun, undisturbed.id, is_final, settings)
        # The trainer clears up behind a run once its row is final.
        assert third.stop() == 0
    assert (tmp_path / "exited").exists(), "torchrun ended by itself"
    assert weights_of(database, ended) == weights_of(database, other)
    assert isinstance(ended, TrainingRun)
    assert ended.progress["steps_done"] == 60
    assert ended.progress["eta_s"] == 0
    assert set(ended.progress) >= {"epoch", "step", "loss", "learning_rate", "images_per_s", "memory_bytes"}
    # TensorBoard's files of all attempts hold each step once, the last one included; an attempt has one object.
    assert len(ended.events) >= 4
    recorded = [step for sha256 in ended.events.values() for step in steps_in(store, sha256)]
    assert sorted(recorded) == list(range(1, 61))
    kept = [key for key in store.keys("results/") if key.endswith("tfevents")]
    assert isinstance(other, TrainingRun)
    # A process that is killed between storing a file and naming it leaves that one.
    assert len(kept) <= len(ended.events) + len(other.events) + 3
    assert not list(store.keys(checkpoint_key(disturbed.id, "").removesuffix(".pt"))), "a finished run needs none"


def test_a_running_training_ends_when_it_is_cancelled(
    environ: dict[str, str], settings: Settings, database: Database, store: ObjectStore, dataset: Dataset
) -> None:
    run = begin(database, dataset, tiny_config(epochs=1000))
    with trainer(environ, processes=2) as running:
        wait_for_task(database, TrainingRun, run.id, lambda row: steps(row) > 0, settings)
        family = psutil.Process(running.process.pid).children(recursive=True)
        assert len(family) == 3, "torchrun and two ranks"
        with database.begin() as session:
            cancel_task(session, TrainingRun, run.id)
        wait_until_gone(family)
        wait_for(lambda: checkpoints(store, run) == named(database, run))
        # Resumed, it continues where it was, and goes first.
        at = named(database, run)
        with database.begin() as session:
            done = session.get_one(TrainingRun, run.id).checkpoint_steps or 0
            resume_training(session, run.id)
        row = wait_for_task(database, TrainingRun, run.id, lambda row: "steps_done" in row.progress, settings)
        assert row.progress["steps_done"] >= done
        row = wait_for_task(database, TrainingRun, run.id, lambda row: steps(row) > done, settings)
        said = [json.loads(line) for line in row.log_tail.splitlines() if line.startswith("{")]
        assert {line["rank"] for line in said if line["event"] == "training_resumed"} == {0, 1}
        with database.begin() as session:
            cancel_task(session, TrainingRun, run.id)
        wait_for(lambda: checkpoints(store, run) == named(database, run))
        assert at, "a cancelled training keeps its last checkpoint"
        # The trainer is free for the next one, which goes all the way to the gate.
        gate = GateConfig(evaluation_dataset_id=dataset.id, evaluation=EvaluationConfig(bootstrap_samples=50))
        after = begin(database, dataset, tiny_config(epochs=1), gate)
        ended = wait_for_task(database, TrainingRun, after.id, is_final, settings)
        assert ended.state == TaskState.SUCCEEDED, (ended.reason, ended.log_tail)
        assert ended.progress["ranks"] == 2
        with database.begin() as session:
            asked = session.scalars(sa.select(GateDecision)).one()
            assert (asked.training_run_id, asked.candidate_model_id) == (after.id, ended.model_id)
            decision_id = asked.id
        decided = wait_for_task(database, GateDecision, decision_id, is_final, settings)
    assert decided.state == TaskState.SUCCEEDED, (decided.reason, decided.log_tail)
    assert decided.promoted is False, "three steps make no detector"
    assert decided.explanation
    with database.begin() as session:
        evaluated = session.get_one(Evaluation, decided.candidate_evaluation_id)
        assert evaluated.metrics is not None
        assert evaluated.metrics["images"] == 4


def test_a_cancelled_training_leaves_no_keys_behind_in_any_state(
    environ: dict[str, str], settings: Settings, database: Database, store: ObjectStore, dataset: Dataset
) -> None:
    """Until `CARINA_CHECKPOINT_DAYS` have passed, the last checkpoint stays. Its row names the event files."""
    before = set(store.keys(""))
    runs = []

    def cancel(state: TaskState) -> None:
        run_id = runs[-1].id
        with database.begin() as session:
            assert session.get_one(TrainingRun, run_id).state == state
            cancel_task(session, TrainingRun, run_id)

    def add() -> None:
        runs.append(begin(database, dataset, tiny_config(epochs=1000, checkpoint_every_min=OFTEN)))

    def keys_of(row: TrainingRun) -> set[str]:
        events = {result_key(sha256, "tfevents") for sha256 in row.events.values()}
        best = row.best_checkpoint and row.best_checkpoint["sha256"]
        digests = (row.checkpoint_sha256, best)
        return events | {checkpoint_key(row.id, sha256) for sha256 in digests if sha256}

    add()
    cancel(TaskState.QUEUED)
    add()
    alone = {"trainer_nodes": "2", "trainer_rendezvous": f"127.0.0.1:{free_port()}"}
    with trainer(environ, **alone):
        wait_for_task(database, TrainingRun, runs[-1].id, lambda row: "waiting" in row.progress, settings)
        cancel(TaskState.RUNNING)
    assert set(store.keys("")) == before
    for steps_done in (0, 3):
        add()
        with trainer(environ) as running:
            wait_for_task(
                database,
                TrainingRun,
                runs[-1].id,
                lambda row, least=steps_done: steps(row) >= least and row.state == TaskState.RUNNING,
                settings,
            )
            cancel(TaskState.RUNNING)
            assert running.stop() == 0
    add()
    with trainer(environ) as running:
        wait_for_task(database, TrainingRun, runs[-1].id, lambda row: steps(row) >= 2, settings)
        assert running.stop() == 0
    cancel(TaskState.INTERRUPTED)
    with database.begin() as session:
        named_keys = set().union(*(keys_of(row) for row in session.scalars(sa.select(TrainingRun))))
        session.execute(sa.update(TrainingRun).values(finished_at=sa.func.now() - sa.text("interval '9 days'")))
    assert set(store.keys("")) == before | named_keys
    Cleanup(settings, database, Incoming(settings)).run()
    assert {key for key in set(store.keys("")) - before if not key.endswith("tfevents")} == set()


def test_a_loss_that_is_no_number_fails_the_run_and_keeps_the_step(
    environ: dict[str, str],
    settings: Settings,
    database: Database,
    store: ObjectStore,
    dataset: Dataset,
    tmp_path: Path,
) -> None:
    hopeless = tiny_config(learning_rate=10, optimizer="sgd", clip_norm=None, warmup_epochs=0, epochs=50)
    run = begin(database, dataset, hopeless)
    with trainer(environ):
        ended = wait_for_task(database, TrainingRun, run.id, is_final, settings)
    assert ended.state == TaskState.FAILED
    assert ended.code == "non_finite_loss"
    assert ended.reason is not None
    key = ended.reason.partition("kept as ")[2].partition(". ")[0]
    kept = tmp_path / "step.pt"
    kept.write_bytes(store.read(key))
    content = torch.load(kept, weights_only=True)
    assert str(content["image_ids"]) in ended.reason
    assert content["batches"][0]["canvases"].dtype == torch.uint8


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"config": {"architecture": "another version's"}}, "unreadable_task"),
        ({"config": tiny_config(initial_weights=f"object:{'0' * 64}").model_dump(mode="json")}, "material_missing"),
    ],
)
def test_what_cannot_heal_is_tried_once(
    environ: dict[str, str],
    settings: Settings,
    database: Database,
    dataset: Dataset,
    change: dict[str, object],
    code: str,
) -> None:
    run = begin(database, dataset, tiny_config())
    with database.begin() as session:
        session.execute(sa.update(TrainingRun).values(change))
    with trainer(environ):
        ended = wait_for_task(database, TrainingRun, run.id, is_final, settings)
    assert (ended.state, ended.code, ended.attempt) == (TaskState.FAILED, code, 1), ended.log_tail


def test_a_task_that_hangs_is_ended_and_tried_again(
    environ: dict[str, str], settings: Settings, database: Database, dataset: Dataset
) -> None:
    run = begin(database, dataset, tiny_config(epochs=1000))
    begun = time.monotonic()
    with trainer(environ) as first:
        wait_for_task(database, TrainingRun, run.id, lambda row: bool(row.progress), settings)
        # Silence of so long is no start, however busy this machine is.
        stuck_s = 3 * (time.monotonic() - begun)
        assert first.stop() == 0
    stopped = wait_for_task(database, TrainingRun, run.id, lambda row: row.lease_owner is None, settings)
    assert "eta_s" not in stopped.progress, "the progress was the ended attempt's"
    with trainer(environ, trainer_stuck_s=str(stuck_s)) as running:
        row = wait_for_task(database, TrainingRun, run.id, lambda row: "epoch" in row.progress, settings)
        losses = row.losses
        hanging = running.rank()
        hanging.suspend()
        row = wait_for_task(database, TrainingRun, run.id, lambda row: row.losses > losses or is_final(row), settings)
        wait_until_gone([hanging])
    assert row.code == "trainer_process_lost"
    assert row.state != TaskState.FAILED
