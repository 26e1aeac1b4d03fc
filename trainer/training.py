"""A training run as a task: from its row to the registered model, with `fit`."""

import signal
import threading

import structlog
import torch

from shared.detector.card import ModelCard
from shared.detector.weights import content_sha256
from shared.errors import DeviceOutOfMemory
from shared.models import registry
from shared.tables import Dataset as DatasetRow
from shared.tables import Evaluation, GateDecision, TrainingRun
from shared.training.config import EvaluationConfig, TrainingConfig
from shared.training.trainings import count_in_split
from trainer import initial_weights
from trainer.checkpointer import RunCheckpointer
from trainer.engine import NonFiniteLoss
from trainer.fit import draft_card, fit
from trainer.initial_weights import InitialWeights
from trainer.lineage import DATASET_DIGEST, LEARNT_FROM, describe_material, find_by_content, read_dataset, training_set
from trainer.ranks import joined
from trainer.rendition_reader import RenditionReader, WarmUp
from trainer.task import Work
from trainer.validation import measure_on

log = structlog.get_logger()


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
        read = RenditionReader.from_settings(work.settings, work.store)
        warm_up = WarmUp(read)
        checkpointer = RunCheckpointer(work, ranks, config, read.cache, warm_up, stop)
        draft = draft_card(config, dataset, name, begun_from.card)
        measure = measure_on(config, whole, draft, read, ranks, work.settings.precision, stop.is_set)
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
                warm_up.begin,
            )
        except NonFiniteLoss as error:
            raise checkpointer.keep_batch(error) from error
        except torch.OutOfMemoryError as error:
            advice = "The device has too little memory: choose a smaller batch_size (and accumulate) or canvas_px."
            raise DeviceOutOfMemory(advice) from error
        finally:
            warm_up.end()
            checkpointer.writer.finish()
        if ranks.is_first:
            _conclude(work, config, card, weights, checkpointer)


def recognise(work: Work, begun_from: InitialWeights, config: TrainingConfig) -> InitialWeights:
    """Find the registered model with the weights of an uploaded file, and store it as the run's parent."""
    with work.database.begin() as session:
        content = content_sha256(begun_from.state)
        found = find_by_content(session, work.store, content, config.architecture)
        if not found:
            return begun_from
        session.get_one(TrainingRun, work.claim.task_id).initial_model_id = found[0].id
        return InitialWeights(begun_from.state, ModelCard.model_validate(found[0].card))


def _conclude(
    work: Work, config: TrainingConfig, card: ModelCard, weights: bytes, checkpointer: RunCheckpointer
) -> None:
    """Register the model, and request its evaluation or a gate decision, in one transaction."""
    run_id = work.claim.task_id
    events = checkpointer.store_events()
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
        work.succeed(session, model_id=model.id, progress=row.progress | {"eta_s": 0}, events=events)
        log.info("model_registered", model_id=str(model.id), digest=card.digest)
    checkpointer.writer.delete_events_except(events)
