"""How the gate's rules are said on a command line."""

from typing import Annotated, Any
from uuid import UUID

import typer
from pydantic import ValidationError
from sqlalchemy.orm import Session

from deploy.cli.console import explain
from shared.training import datasets
from shared.training.config import GateConfig, Split

_DEFAULTS = GateConfig.model_fields

GateDataset = Annotated[
    str | None, typer.Option(help="Decide on this dataset (name or id) whether the model becomes active.")
]
GateSplit = Annotated[Split | None, typer.Option(help="On which split of it.", show_default="val")]
LeastGain = Annotated[
    float | None,
    typer.Option(
        help="The lower bound of the gain in mAP@0.4 has to be above this.",
        show_default=str(_DEFAULTS["least_gain"].default),
    ),
]
Confidence = Annotated[
    float | None, typer.Option(help="Of the gain's interval.", show_default=str(_DEFAULTS["confidence"].default))
]
MostClassDrop = Annotated[
    float | None,
    typer.Option(
        help="No class may lose more average precision than this.",
        show_default=str(_DEFAULTS["most_class_drop"].default),
    ),
]
CountedFromBoxes = Annotated[
    int | None,
    typer.Option(
        help="Classes with fewer true boxes may lose any.", show_default=str(_DEFAULTS["counted_from_boxes"].default)
    ),
]


def read_gate(
    session: Session,
    project_id: UUID,
    before: GateConfig | None,
    *,
    dataset: str | None,
    split: Split | None,
    **rules: object,
) -> GateConfig | None:
    """Return a gate with what is given changed; None where there was no gate and nothing is given.

    Raises `typer.BadParameter`, and what `datasets.resolve` raises for the dataset's name or id.
    """
    given: dict[str, Any] = {name: rule for name, rule in rules.items() if rule is not None}
    values = {} if before is None else before.model_dump(mode="json")
    if dataset is not None:
        values["evaluation_dataset_id"] = datasets.resolve(session, project_id, dataset).id
    elif before is None:
        if given or split is not None:
            raise typer.BadParameter("A gate needs a dataset to decide on: --gate-dataset.")
        return None
    if split is not None:
        values["evaluation"] = {**values.get("evaluation", {}), "split": split}
    try:
        return GateConfig.model_validate(values | given)
    except ValidationError as exc:
        raise typer.BadParameter(explain(exc)) from exc
