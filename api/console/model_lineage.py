"""Reads the origin and the evaluations of models, for the pages about models."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared.tables import Dataset, Evaluation, Model, TrainingRun
from shared.vocabulary.states import TaskState


@dataclass(frozen=True)
class Measured:
    """An evaluation of a model."""

    id: UUID
    model_id: UUID
    dataset_id: UUID
    dataset_name: str
    split: str
    state: TaskState
    reason: str | None
    metrics: dict[str, Any]

    @property
    def set_name(self) -> str:
        """Return the name of the evaluated set."""
        return f"{self.dataset_name}, {self.split}"

    @property
    def set_key(self) -> str:
        """Return the key of the set; evaluations with the same key can be compared."""
        return f"{self.dataset_id}:{self.split}"


@dataclass(frozen=True)
class Lineage:
    """A model with its origin, which is empty for an imported model."""

    model: Model
    run: TrainingRun | None
    dataset: Dataset | None
    parent: Model | None
    #: The newest first.
    evaluations: list[Measured] = field(default_factory=list)

    @property
    def headline(self) -> Measured | None:
        """Return the newest succeeded evaluation."""
        return next((each for each in self.evaluations if each.state == TaskState.SUCCEEDED), None)


def read_lineages(session: Session, models: Sequence[Model]) -> list[Lineage]:
    """Read the origins of models, in a few queries for all of them."""
    by_id = {model.id: model for model in models}
    runs = session.scalars(
        sa.select(TrainingRun).where(TrainingRun.model_id.in_(by_id)).order_by(TrainingRun.id.desc())
    )
    run_of = {run.model_id: run for run in runs}
    datasets = sa.select(Dataset).where(Dataset.id.in_([run.dataset_id for run in run_of.values()]))
    dataset_of = {dataset.id: dataset for dataset in session.scalars(datasets)}
    parent_ids = {run.initial_model_id for run in run_of.values()} - {None}
    parents = {row.id: row for row in session.scalars(sa.select(Model).where(Model.id.in_(parent_ids)))}
    measured: dict[UUID, list[Measured]] = {}
    for each in read_evaluations(session, list(by_id)):
        measured.setdefault(each.model_id, []).append(each)
    lineages = []
    for model in models:
        run = run_of.get(model.id)
        lineages.append(
            Lineage(
                model,
                run,
                dataset_of.get(run.dataset_id) if run else None,
                parents.get(run.initial_model_id) if run and run.initial_model_id else None,
                measured.get(model.id, []),
            )
        )
    return lineages


def read_evaluations(session: Session, model_ids: Sequence[UUID]) -> list[Measured]:
    """Read the evaluations of models, the newest first, without cancelled ones."""
    rows = session.execute(
        sa.select(Evaluation, Dataset.name)
        .join(Dataset, Dataset.id == Evaluation.dataset_id)
        .where(Evaluation.model_id.in_(model_ids), Evaluation.state != TaskState.CANCELLED)
        .order_by(Evaluation.id.desc())
    )
    return [
        Measured(
            row.id,
            row.model_id,
            row.dataset_id,
            name,
            str(row.config.get("split", "val")),
            TaskState(row.state),
            row.reason,
            row.metrics or {},
        )
        for row, name in rows
    ]
