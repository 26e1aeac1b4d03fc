"""What a model has learnt from: the one answer that training and evaluation both go by."""

from collections.abc import Iterator, Mapping
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared.errors import NotFound
from shared.object_store import ObjectStore, dataset_key
from shared.project_scope import ACROSS_PROJECTS
from shared.tables import Dataset as DatasetRow
from shared.tables import TrainingRun
from shared.training import TrainingConfig
from trainer.datasets.dataset import Dataset, Film, parse

#: Of `Session.get`.
NO_OPTIONS: Mapping[str, Any] = {}


def read_dataset(
    session: Session, store: ObjectStore, dataset_id: UUID, *, options: Mapping[str, Any] = NO_OPTIONS
) -> Dataset:
    """Return a complete dataset; raises `NotFound`."""
    row = session.get(DatasetRow, dataset_id, execution_options=options)
    if row is None or row.digest is None:
        raise NotFound(f"There is no complete dataset {dataset_id}.")
    return parse(store.get(dataset_key(row.digest), sha256=row.digest))


def training_set(
    session: Session, store: ObjectStore, run: TrainingRun, *, options: Mapping[str, Any] = NO_OPTIONS
) -> Dataset:
    """Return the training films of a run: those of its dataset, less images and patients that are held out."""
    groups: set[str] = set()
    originals: set[str] = set()
    for held_out in TrainingConfig.model_validate(run.config).held_out:
        for film in read_dataset(session, store, held_out.dataset_id, options=options).of(held_out.split).films:
            groups.add(film.group)
            originals.add(film.sha256)
    dataset = read_dataset(session, store, run.dataset_id, options=options)
    return dataset.of("train").without(frozenset(groups), frozenset(originals))


def learnt_from(session: Session, store: ObjectStore, model_id: UUID) -> Iterator[tuple[TrainingRun, tuple[Film, ...]]]:
    """Yield each run that led to a model, with its films: also those of the models that it began from.

    Models are shared by all projects, and any of them may have trained one: nobody is told which films these were.
    """
    ancestors, seen = [model_id], set()
    while ancestors:
        ancestor = ancestors.pop()
        seen.add(ancestor)
        runs = sa.select(TrainingRun).where(TrainingRun.model_id == ancestor).execution_options(**ACROSS_PROJECTS)
        for run in session.scalars(runs):
            yield run, training_set(session, store, run, options=ACROSS_PROJECTS).films
            if run.initial_model_id is not None and run.initial_model_id not in seen:
                ancestors.append(run.initial_model_id)
