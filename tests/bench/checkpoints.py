"""What the checkpoints of a ResNet-50 detector cost a training, and how much work is lost if it is killed."""

import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from shared.database import Database
from shared.detector.families import build
from shared.object_store import ObjectStore
from shared.tables import Dataset as DatasetRow
from shared.training.config import TrainingConfig
from shared.training.tasks import claim_task
from shared.training.trainings import start_training
from tests.bench.figure import Figure
from tests.bench.servers import servers
from tests.tiny_dataset import store_dataset
from tests.tiny_images import card_of, tiny_dataset
from trainer.checkpointer import MAX_LOST_S, MAX_OVERHEAD, RunCheckpointer
from trainer.engine import Trainee
from trainer.fit import Position, Progress, copy_state
from trainer.ranks import Ranks
from trainer.rendition_reader import RenditionReader, WarmUp
from trainer.task import Work

ALONE = Ranks(0, 1, torch.device("cpu"))


def measure() -> Iterator[Figure]:
    """Store a checkpoint as a training does, beside a loop that wants to go on."""
    torch.set_num_threads(1)
    config = TrainingConfig(architecture="fasterrcnn_resnet50_fpn", initial_weights="none", ema_decay=0.999)
    trainee = _trainee(config)
    with servers() as settings, TemporaryDirectory() as folder:
        database, store = Database.from_settings(settings), ObjectStore(settings)
        dataset_id = store_dataset(database, store, count=4).id
        with database.begin() as session:
            start_training(session, dataset=session.get_one(DatasetRow, dataset_id), config=config)
        with database.begin() as session:
            claim = claim_task(session, "bench", lease_s=86_400)
        assert claim is not None
        read = RenditionReader(store, Path(folder), 10**9)
        work = Work(settings, database, store, claim)
        checkpointer = RunCheckpointer(work, ALONE, config, read.cache, WarmUp(read), threading.Event())
        checkpointer.load()
        after = Progress(Position(0, 1, 1), 100, 1, {"loss": 1.0})
        began = time.monotonic()
        checkpointer.save(partial(copy_state, trainee, after.position, (0,), is_measured=True), after)
        waited_s = time.monotonic() - began
        pause_s = _longest_pause_s(lambda: not checkpointer.writer.is_busy)
        size = next(store.objects("checkpoints/")).byte_count
        writer = checkpointer.writer
        writer.finish()
        database.close()
        store.close()
    yield Figure("checkpoint", size / 1e6, "MB")
    yield Figure("time that the ranks wait", waited_s, "s")
    yield Figure("time until it is stored", writer.written_s, "s")
    yield Figure("cost: the wait and the processor's time", writer.cost_s, "s")
    yield Figure("longest pause of the training meanwhile", pause_s, "s")
    period_s = max(MAX_LOST_S - writer.written_s, writer.cost_s / MAX_OVERHEAD)
    yield Figure("default period", period_s, "s")
    yield Figure("share of the time", writer.cost_s / period_s, "", MAX_OVERHEAD + 1e-9, "below")
    yield Figure("work that a kill loses at most", period_s + writer.written_s, "s", MAX_LOST_S + 1, "below")


def _trainee(config: TrainingConfig) -> Trainee:
    """Return a model with its moving average and the momentum of its optimizer, as after a step."""
    card = card_of(config, tiny_dataset(1))
    trainee = Trainee(build(card), card, config, ALONE)
    for weight in trainee.model.parameters():
        weight.grad = torch.zeros_like(weight)
    trainee.optimizer.step()
    trainee.optimizer.zero_grad()
    return trainee


def _longest_pause_s(is_over: Callable[[], bool]) -> float:
    """Return the longest time for which this thread could not go on, until `is_over`."""
    longest_s, before = 0.0, time.monotonic()
    while not is_over():
        now = time.monotonic()
        longest_s, before = max(longest_s, now - before), now
    return longest_s
