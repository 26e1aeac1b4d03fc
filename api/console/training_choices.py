"""The choices in the dialogs that start a training: datasets, recipes, models."""

from dataclasses import dataclass
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared.tables import Dataset, Model
from shared.training.recipes import RECIPES
from shared.vocabulary.states import TaskState

#: Offered at most, the newest.
_MOST = 200


@dataclass(frozen=True)
class DatasetChoice:
    """A dataset that can be trained on."""

    id: UUID
    name: str
    images: int
    #: Whether it is the newest of its name.
    latest: bool


@dataclass(frozen=True)
class Choices:
    """What there is to choose from."""

    datasets: list[DatasetChoice]
    models: list[tuple[UUID, str]]
    #: By name, each recipe's epochs, batch size and learning rate, which a dialog shows as what it changes.
    recipes: dict[str, dict[str, object]]


def read_choices(session: Session) -> Choices:
    """Read what there is to choose from."""
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
