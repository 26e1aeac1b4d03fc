"""A training run as a task: from its row to the registered model, with `fit`."""

import hashlib
import io
import resource
import signal
import sys
import threading
import time

import structlog
import torch

from shared.detector.card import ModelCard
from shared.detector.weights import content_sha256
from shared.errors import DeviceOutOfMemory
from shared.models import registry
from shared.object_store import checkpoint_key, result_key
from shared.tables import Dataset as DatasetRow
from shared.tables import Evaluation, GateDecision, TrainingRun
from shared.training.config import EvaluationConfig, TrainingConfig
from shared.training.tasks import update_task
from shared.training.trainings import count_in_split
from trainer import initial_weights
from trainer.curve import AP40, Curve
from trainer.engine import NonFiniteLoss
from trainer.event_file import EventFile
from trainer.fit import Progress, draft_card, fit
from trainer.initial_weights import InitialWeights
from trainer.lineage import DATASET_DIGEST, LEARNT_FROM, describe_material, find_by_content, read_dataset, training_set
from trainer.ranks import Ranks, joined
from trainer.rendition_reader import RenditionReader
from trainer.task import Interrupted, TaskLost, Work
from trainer.validation import measure_on

log = structlog.get_logger()

REPORT_EVERY_S = 1.0
LOG_EVERY_S = 20.0


def run(work: Work) -> None:
    """Train, from the last checkpoint if there is one, and register the model as a candidate."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    with joined(work.settings.device, work.settings.torch_threads) as ranks:
        with work.database.begin() as session:
            row = session.get_one(TrainingRun, work.claim.task_id)
            config = TrainingConfig.model_validate(row.config)
            dataset = training_set(session, work.store, row)
            whole = read_dataset(session, work.store, row.dataset_id)
            name = row.name
        begun_from = initial_weights.fetch(config.initial_weights, config.architecture, work.database, work.store)
        if config.initial_weights.startswith("object:"):
            begun_from = recognise(work, begun_from, config)
        checkpointer = RunCheckpointer(work, ranks, config, stop)
        draft = draft_card(config, dataset, name, begun_from.card)
        read = RenditionReader.from_settings(work.settings, work.store)
        measure = measure_on(config, whole, draft, read, ranks, work.settings.precision)
        try:
            card, weights = fit(
                config,
                dataset,
                draft,
                lambda model: initial_weights.fill(model, begun_from.state, draft, begun_from.card),
                read,
                ranks,
                checkpointer,
                measure,
            )
        except NonFiniteLoss as error:
            raise checkpointer.keep_batch(error) from error
        except torch.OutOfMemoryError as error:
            advice = "The device has too little memory: choose a smaller batch_size (and accumulate) or canvas_px."
            raise DeviceOutOfMemory(advice) from error
        if ranks.is_first:
            _conclude(work, config, card, weights)


def recognise(work: Work, begun_from: InitialWeights, config: TrainingConfig) -> InitialWeights:
    """Find the registered model with the weights of an uploaded file, and store it as the run's parent."""
    with work.database.begin() as session:
        content = content_sha256(begun_from.state)
        found = find_by_content(session, work.store, content, config.architecture)
        if not found:
            return begun_from
        session.get_one(TrainingRun, work.claim.task_id).initial_model_id = found[0].id
        return InitialWeights(begun_from.state, ModelCard.model_validate(found[0].card))


class RunCheckpointer:
    """Stores a run's checkpoints in the object store and its progress in its row; see `fit.Checkpointer`."""

    def __init__(self, work: Work, ranks: Ranks, config: TrainingConfig, stop: threading.Event) -> None:
        self._work = work
        self._ranks = ranks
        self._config = config
        self._stop = stop
        self._stopping = False
        self._saved_at = self._reported_at = self._logged_at = self._began_at = time.monotonic()
        self._images = 0
        self._steps = 0
        self._curve = Curve(work.claim.task_id)
        #: The last measured value.
        self._ap40: float | None = None
        self._events = EventFile() if ranks.is_first else None

    def load(self) -> bytes | None:
        """Return the last checkpoint, as named in the row."""
        with self._work.database.begin() as session:
            row = session.get_one(TrainingRun, self._work.claim.task_id)
            sha256, steps = row.checkpoint_sha256, row.checkpoint_steps
            self._ap40 = row.progress.get(AP40)
            if self._ranks.is_first:
                self._curve.go_back(session, steps or 0)
        if sha256 is None:
            return None
        log.info("training_resumed", steps=steps)
        return self._work.store.get(checkpoint_key(self._work.claim.task_id, sha256), sha256=sha256)

    def is_due(self, progress: Progress) -> bool:
        """Return whether a rank was asked to stop, an epoch has ended, or the last checkpoint is too old."""
        late = time.monotonic() - self._saved_at > 60 * self._config.checkpoint_every_min
        asked, due = self._ranks.sum([self._stop.is_set(), late and self._ranks.is_first])
        self._stopping = asked > 0
        return self._stopping or due > 0 or progress.position.step == 0

    def save(self, checkpoint: bytes, progress: Progress) -> None:
        """Store a checkpoint and its key in the row, and delete the previous one. Raises `TaskLost`."""
        work, run_id = self._work, self._work.claim.task_id
        sha256 = hashlib.sha256(checkpoint).hexdigest()
        work.store.put(checkpoint_key(run_id, sha256), checkpoint)
        events = self._store_events()
        with work.database.begin() as session:
            row = session.get_one(TrainingRun, run_id)
            before = row.checkpoint_sha256
            values = {
                "checkpoint_sha256": sha256,
                "checkpoint_steps": progress.position.steps_done,
                "events": row.events | events,
                "losses": 0,
            }
            if not update_task(session, work.claim, **values):
                raise TaskLost
        if before not in (None, sha256):
            work.store.delete(checkpoint_key(run_id, str(before)))
        self._saved_at = time.monotonic()
        log.info("checkpoint_saved", steps=progress.position.steps_done, bytes=len(checkpoint))

    def check(self, progress: Progress) -> None:
        """Report progress, and raise `Interrupted` if the run must stop here."""
        self._images += progress.images
        self._steps += 1
        if self._events is not None:
            for name, figure in progress.figures.items():
                self._events.add(name, figure, progress.position.steps_done)
            self._curve.add(progress.figures)
            self._ap40 = progress.figures.get(AP40, self._ap40)
            if time.monotonic() - self._reported_at > REPORT_EVERY_S or progress.position.step == 0:
                self._report(progress)
        if self._stopping:
            raise Interrupted

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
            **{name: round(value, 6) for name, value in progress.figures.items()},
            "images_per_s": round(self._images / elapsed_s, 3),
            "memory_bytes": _peak_memory_bytes(self._ranks.device),
            "eta_s": round(steps_left * elapsed_s / self._steps),
            AP40: self._ap40,
        }
        with self._work.database.begin() as session:
            if not update_task(session, self._work.claim, progress=figures):
                raise TaskLost
            self._curve.write(session, step=position.steps_done, epoch=round(epochs_done, 4))
        self._reported_at = now
        if now - self._logged_at > LOG_EVERY_S or position.step == 0:
            self._logged_at = now
            log.info("training", **figures)

    def _store_events(self) -> dict[str, str]:
        """Store the event file of this attempt. Returns its digest by attempt."""
        assert self._events is not None
        content = self._events.content()
        sha256 = hashlib.sha256(content).hexdigest()
        self._work.store.put(result_key(sha256, "tfevents"), content)
        return {str(self._work.claim.attempt): sha256}


def _conclude(work: Work, config: TrainingConfig, card: ModelCard, weights: bytes) -> None:
    """Register the model, and request its evaluation or a gate decision, in one transaction."""
    run_id = work.claim.task_id
    with work.database.begin() as session:
        row = session.get_one(TrainingRun, run_id)
        dataset = session.get_one(DatasetRow, row.dataset_id)
        card = card.model_copy(
            update={
                "metrics": {
                    "training_run": str(run_id),
                    DATASET_DIGEST: dataset.digest,
                    LEARNT_FROM: describe_material(session, row),
                    "config_digest": row.config_digest,
                }
            }
        )
        model = registry.register(session, work.store, card, weights)
        if row.gate is not None:
            session.add(
                GateDecision(
                    project_id=row.project_id, candidate_model_id=model.id, training_run_id=run_id, config=row.gate
                )
            )
        elif config.evaluate_split is not None and count_in_split(dataset, config.evaluate_split, "images") != 0:
            asked = EvaluationConfig(split=config.evaluate_split).model_dump(mode="json")
            session.add(
                Evaluation(project_id=row.project_id, model_id=model.id, dataset_id=row.dataset_id, config=asked)
            )
        work.succeed(session, model_id=model.id, progress=row.progress | {"eta_s": 0})
        log.info("model_registered", model_id=str(model.id), digest=card.digest)


def _peak_memory_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
