"""The training data of a model and its ancestors, as training and evaluation both use it."""

from collections.abc import Iterator, Mapping
from typing import Any
from uuid import UUID

import sqlalchemy as sa
import structlog
from sqlalchemy.orm import Session

from shared.database.project_scope import ACROSS_PROJECTS
from shared.detector.card import ModelCard
from shared.detector.weights import content_sha256, decode_weights
from shared.errors import NotFound, ObjectCorrupt, ObjectMissing
from shared.object_store import ObjectStore, dataset_key, weights_key
from shared.tables import Dataset as DatasetRow
from shared.tables import Model, TrainingRun
from shared.training.config import Split, TrainingConfig
from trainer.datasets.dataset import Dataset, DatasetImage, parse

log = structlog.get_logger()

#: Keys of a card's `metrics`.
DATASET_DIGEST, LEARNT_FROM = "dataset_digest", "learnt_from"
_SPLITS: dict[str, Split] = {"train": "train", "val": "val", "test": "test"}
#: Default options of `Session.get`.
NO_OPTIONS: Mapping[str, Any] = {}


def read_dataset(
    session: Session, store: ObjectStore, dataset_id: UUID, *, options: Mapping[str, Any] = NO_OPTIONS
) -> Dataset:
    """Return a complete dataset. Raises `NotFound`."""
    row = session.get(DatasetRow, dataset_id, execution_options=options)
    if row is None or row.digest is None:
        raise NotFound(f"There is no complete dataset {dataset_id}.")
    return parse(store.get(dataset_key(row.digest), sha256=row.digest))


def training_set(
    session: Session, store: ObjectStore, run: TrainingRun, *, options: Mapping[str, Any] = NO_OPTIONS
) -> Dataset:
    """Return the training images of a run: those of its dataset without held-out images and patients."""
    groups: set[str] = set()
    originals: set[str] = set()
    for held_out in TrainingConfig.model_validate(run.config).held_out:
        for image in read_dataset(session, store, held_out.dataset_id, options=options).of(held_out.split).images:
            groups.add(image.group)
            originals.add(image.sha256)
    dataset = read_dataset(session, store, run.dataset_id, options=options)
    return dataset.of("train").without(frozenset(groups), frozenset(originals))


def learnt_from(session: Session, store: ObjectStore, model_id: UUID) -> Iterator[tuple[DatasetImage, ...]]:
    """Yield the images of each run that led to a model, including the runs of its ancestors.

    Models are identified by the content of their weights: a model that was exported and imported again, under another
    name or in another file, was trained on the same images. Models are shared by all projects, and each project can
    have trained one; callers must not reveal these images to users.
    """
    ancestors, seen = [model_id], {model_id}
    while ancestors:
        for twin in find_twins(session, store, session.get_one(Model, ancestors.pop())):
            seen.add(twin.id)
            own_runs = sa.select(TrainingRun).where(TrainingRun.model_id == twin.id)
            runs = session.scalars(own_runs.execution_options(**ACROSS_PROJECTS)).all()
            for run in runs:
                yield training_set(session, store, run, options=ACROSS_PROJECTS).images
                if run.initial_model_id is not None and run.initial_model_id not in seen:
                    seen.add(run.initial_model_id)
                    ancestors.append(run.initial_model_id)
            if not runs:
                yield from _learnt_elsewhere(session, store, ModelCard.model_validate(twin.card))


def find_twins(session: Session, store: ObjectStore, model: Model) -> list[Model]:
    """Return the model and all models with the same weights, with any name or file."""
    content = _content_of(store, model)
    if content is None:
        return [model]
    return [
        model,
        *(twin for twin in find_by_content(session, store, content, model.card["architecture"]) if twin.id != model.id),
    ]


def find_by_content(session: Session, store: ObjectStore, content: str, architecture: str) -> list[Model]:
    """Return the models with these weights. Missing digests of trained models are computed and stored."""
    of_architecture = Model.card["architecture"].astext == architecture
    has_run = sa.exists().where(TrainingRun.model_id == Model.id)
    is_trained = sa.or_(has_run, Model.card["metrics"].has_key(DATASET_DIGEST))
    unknown = sa.select(Model).where(of_architecture, Model.content_sha256.is_(None), is_trained).order_by(Model.id)
    for model in session.scalars(unknown.execution_options(**ACROSS_PROJECTS)).all():
        _content_of(store, model)
    session.flush()
    same = sa.select(Model).where(Model.content_sha256 == content).order_by(Model.id)
    return list(session.scalars(same))


def describe_material(session: Session, run: TrainingRun) -> str:
    """Return the training data of a run and of its ancestors as text for a card; `_learnt_elsewhere` reads it.

    For each dataset its digest, followed by `-DIGEST/SPLIT` for each split that was held out; separated by spaces.
    """
    config = TrainingConfig.model_validate(run.config)
    own = str(session.get_one(DatasetRow, run.dataset_id).digest)
    for held in config.held_out:
        own += f"-{session.get_one(DatasetRow, held.dataset_id).digest}/{held.split}"
    inherited = ""
    if run.initial_model_id is not None:
        before: dict[str, Any] = session.get_one(Model, run.initial_model_id).card.get("metrics", {})
        inherited = str(before.get(LEARNT_FROM) or before.get(DATASET_DIGEST) or "")
    return " ".join(dict.fromkeys([own, *inherited.split()]))


def _learnt_elsewhere(session: Session, store: ObjectStore, card: ModelCard) -> Iterator[tuple[DatasetImage, ...]]:
    """Yield the images of the datasets that a card names by digest, if this installation has them."""
    named = str(card.metrics.get(LEARNT_FROM) or card.metrics.get(DATASET_DIGEST) or "")
    for entry in named.split():
        digest, *held_out = entry.split("-")
        learnt = _read_by_digest(session, store, digest)
        if learnt is None:
            continue
        groups: set[str] = set()
        originals: set[str] = set()
        for held in held_out:
            held_digest, _, split = held.partition("/")
            dataset = _read_by_digest(session, store, held_digest)
            for image in () if dataset is None else dataset.of(_SPLITS[split]).images:
                groups.add(image.group)
                originals.add(image.sha256)
        yield learnt.of("train").without(frozenset(groups), frozenset(originals)).images


def _read_by_digest(session: Session, store: ObjectStore, digest: str) -> Dataset | None:
    known = sa.select(DatasetRow.id).where(DatasetRow.digest == digest).limit(1)
    dataset_id = session.scalar(known.execution_options(**ACROSS_PROJECTS))
    return None if dataset_id is None else read_dataset(session, store, dataset_id, options=ACROSS_PROJECTS)


def _content_of(store: ObjectStore, model: Model) -> str | None:
    """Return the digest of a model's weights, computed if missing; None if the weights are deleted or corrupt."""
    if model.content_sha256 is None:
        try:
            weights = store.get(weights_key(model.weights_sha256), sha256=model.weights_sha256)
        except (ObjectMissing, ObjectCorrupt):
            log.warning("model_without_weights", model_id=str(model.id))
            return None
        model.content_sha256 = content_sha256(decode_weights(weights))
    return model.content_sha256
