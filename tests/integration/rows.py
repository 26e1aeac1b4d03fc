"""Rows of datasets and models with nothing behind them, for what only looks at rows."""

import hashlib

from sqlalchemy.orm import Session

from shared.queue.states import ModelState, TaskState
from shared.tables import Dataset, Model


def add_dataset(
    session: Session, name: str = "films", *, content: str = "first", state: TaskState = TaskState.SUCCEEDED
) -> Dataset:
    """Add a dataset whose digest follows from its content."""
    digest = hashlib.sha256(content.encode()).hexdigest() if state is TaskState.SUCCEEDED else None
    session.add(dataset := Dataset(name=name, source={}, digest=digest, state=state))
    session.flush()
    return dataset


def add_model(session: Session, name: str = "lungs", state: ModelState = ModelState.CANDIDATE) -> Model:
    """Add a model that nobody can load."""
    digest = hashlib.sha256(name.encode()).hexdigest()
    session.add(model := Model(name=name, digest=digest, card={"categories": []}, weights_sha256="0" * 64, state=state))
    session.flush()
    return model
