"""The choices in the dialogs that start a training: datasets, recipes, models."""

from dataclasses import dataclass
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared.tables import Dataset, Model
from shared.training.recipes import RECIPES
from shared.vocabulary.states import TaskState

#: Maximum number of options, the newest first.
_MOST = 200


@dataclass(frozen=True)
class DatasetChoice:
    """A dataset for training."""

    id: UUID
    name: str
    images: int
    #: Whether it is the newest with its name.
    latest: bool


@dataclass(frozen=True)
class Choices:
    """The options of a new training."""

    datasets: list[DatasetChoice]
    models: list[tuple[UUID, str]]
    #: Each recipe's epochs, batch size and learning rate by its name; a dialog shows them as the values to change.
    recipes: dict[str, dict[str, object]]


def read_choices(session: Session) -> Choices:
    """Read the options of a new training."""
    made = sa.select(Dataset).where(Dataset.state == TaskState.SUCCEEDED, Dataset.erased_count == 0)
    made = made.order_by(Dataset.id.desc()).limit(_MOST)
    seen: set[str] = set()
    datasets = []
    for row in session.scalars(made):
        datasets.append(DatasetChoice(row.id, row.name, row.image_count or 0, row.name not in seen))
        seen.add(row.name)
    models = session.execute(sa.select(Model.id, Model.name).order_by(Model.id.desc()).limit(_MOST))
    shown = ("epochs", "batch_size", "learning_rate", "initial_weights", "architecture")
    recipes = {name: {key: getattr(recipe, key) for key in shown} for name, recipe in RECIPES.items()}
    return Choices(datasets, [(id_, name) for id_, name in models], recipes)
