"""The datasets that there are: finding one by its name or its id."""

from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared.errors import NotFound, NotReady
from shared.queue.states import TaskState
from shared.tables import Dataset


def latest(session: Session, name: str) -> Dataset | None:
    """Return the newest dataset of a name that succeeded, if there is one."""
    made = sa.select(Dataset).where(Dataset.name == name, Dataset.state == TaskState.SUCCEEDED)
    return session.scalar(made.order_by(Dataset.id.desc()).limit(1))


def resolve(session: Session, name_or_id: str) -> Dataset:
    """Return the dataset of an id, else the latest that succeeded of a name; raises `NotFound` and `NotReady`."""
    dataset = find(session, name_or_id)
    if dataset.state != TaskState.SUCCEEDED:
        reason = f": {dataset.reason}" if dataset.reason else "."
        raise NotReady(f"Dataset {dataset.id} ({dataset.name}) is {dataset.state}{reason}")
    return dataset


def find(session: Session, name_or_id: str) -> Dataset:
    """Return the dataset of an id, else the latest of a name, of those that succeeded where there are any.

    Raises `NotFound`.
    """
    dataset = _by_id(session, name_or_id) or latest(session, name_or_id)
    if dataset is None:
        of_name = sa.select(Dataset).where(Dataset.name == name_or_id).order_by(Dataset.id.desc()).limit(1)
        dataset = session.scalar(of_name)
    if dataset is None:
        raise NotFound(f"There is no dataset {name_or_id!r}; `carina dataset list` shows all.")
    return dataset


def _by_id(session: Session, text: str) -> Dataset | None:
    try:
        return session.get(Dataset, UUID(text))
    except ValueError:
        return None
