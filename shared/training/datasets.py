"""Finds a dataset by its name or its id."""

from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared.errors import NotReady
from shared.suggestions import pick
from shared.tables import Dataset
from shared.vocabulary.states import TaskState


def latest(session: Session, project_id: UUID, name: str) -> Dataset | None:
    """Return a project's newest succeeded dataset with a name, or None."""
    of_name = (Dataset.project_id == project_id, Dataset.name == name)
    made = sa.select(Dataset).where(*of_name, Dataset.state == TaskState.SUCCEEDED)
    return session.scalar(made.order_by(Dataset.id.desc()).limit(1))


def resolve(session: Session, project_id: UUID, name_or_id: str) -> Dataset:
    """Return a project's dataset by id, else its latest succeeded dataset with this name.

    Raises `NotFound` and `NotReady`.
    """
    dataset = find(session, project_id, name_or_id)
    if dataset.state != TaskState.SUCCEEDED:
        reason = f": {dataset.reason}" if dataset.reason else "."
        raise NotReady(f"Dataset {dataset.id} ({dataset.name}) is {dataset.state}{reason}", parameter="dataset")
    return dataset


def find(session: Session, project_id: UUID, name_or_id: str, *, parameter: str = "dataset") -> Dataset:
    """Return a project's dataset by id or the first digits of it, else its latest dataset with this name.

    Succeeded datasets come before newer ones in other states. Raises `NotFound` and `AmbiguousName`.
    """
    dataset = _by_id(session, project_id, name_or_id) or latest(session, project_id, name_or_id)
    if dataset is None:
        of_name = sa.select(Dataset).where(Dataset.project_id == project_id, Dataset.name == name_or_id)
        dataset = session.scalar(of_name.order_by(Dataset.id.desc()).limit(1))
    if dataset is None:
        rows = sa.select(Dataset.id, Dataset.name).where(Dataset.project_id == project_id)
        called = {row.id: row.name for row in session.execute(rows)}
        dataset = session.get_one(Dataset, pick("dataset", name_or_id, called, parameter=parameter))
    return dataset


def _by_id(session: Session, project_id: UUID, text: str) -> Dataset | None:
    try:
        dataset = session.get(Dataset, UUID(text))
    except ValueError:
        return None
    return dataset if dataset is not None and dataset.project_id == project_id else None
