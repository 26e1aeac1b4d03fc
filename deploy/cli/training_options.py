"""Options of a training's config and of the gate: a recipe and its changes, a dataset and its rules."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import ValidationError

from deploy.cli.console import explain
from shared.errors import InvalidRequest
from shared.suggestions import did_you_mean
from shared.training.config import GateConfig, GateMetric, Split, TrainingConfig
from shared.training.recipes import RECIPES, change_config

if TYPE_CHECKING:  # the HTTP client is only loaded by the commands that use it
    from api.client import Carina

_OF_RECIPE = "the recipe's"
_GATE = {name: str(field.default) for name, field in GateConfig.model_fields.items()}

Recipe = Annotated[str, typer.Option(help=f"Config to start from: {', '.join(RECIPES)}.")]
Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change one key of the recipe, as in `ema_decay=null` or `augmentation.gamma=[0.8,1.2]`; may be repeated.",
    ),
]
Architecture = Annotated[str | None, typer.Option("--arch", help="The network.", show_default=_OF_RECIPE)]
Epochs = Annotated[int | None, typer.Option(help="Passes over the training images.", show_default=_OF_RECIPE)]
BatchSize = Annotated[int | None, typer.Option(help="Images of one process in a step.", show_default=_OF_RECIPE)]
CanvasPx = Annotated[
    int | None, typer.Option(help="Side of the square that images are fitted onto.", show_default=_OF_RECIPE)
]
LearningRate = Annotated[float | None, typer.Option(help="For one process.", show_default=_OF_RECIPE)]
Weights = Annotated[
    str | None,
    typer.Option(
        help="Weights to begin with: a file, `torchvision` (ImageNet), `none`, `model:NAME_OR_ID` or `object:SHA256`.",
        show_default=_OF_RECIPE,
    ),
]
Seed = Annotated[int | None, typer.Option(help="Seed of everything that is drawn at random.", show_default=_OF_RECIPE)]

GateDataset = Annotated[
    str | None, typer.Option(help="Decide on this dataset (name or id) whether the model becomes active.")
]
GateSplit = Annotated[Split | None, typer.Option(help="Split of that dataset to decide on.", show_default="val")]
Metric = Annotated[
    GateMetric | None,
    typer.Option(
        help="What is compared: mAP@0.4 over the classes, or the same with `No finding` as one more class.",
        show_default=_GATE["metric"],
    ),
]
LeastGain = Annotated[
    float | None,
    typer.Option(help="The lower bound of the gain must be above this.", show_default=_GATE["least_gain"]),
]
Confidence = Annotated[
    float | None, typer.Option(help="Confidence of the gain's interval.", show_default=_GATE["confidence"])
]
MostClassDrop = Annotated[
    float | None,
    typer.Option(help="No class may lose more average precision than this.", show_default=_GATE["most_class_drop"]),
]
CountedFromBoxes = Annotated[
    int | None,
    typer.Option(
        help="Classes with fewer true boxes may lose any precision.", show_default=_GATE["counted_from_boxes"]
    ),
]


def read_changes(recipe: str | TrainingConfig, settings: list[str] | None, **options: object) -> dict[str, Any]:
    """Return what `KEY=VALUE` settings and then options change of a config; options that are None are not given.

    A value is JSON, or else a string; a key may have dots. Raises `typer.BadParameter`, which names what is wrong.
    """
    if isinstance(recipe, str) and recipe not in RECIPES:
        raise typer.BadParameter(
            f"There is no recipe {recipe!r}; there are {', '.join(RECIPES)}.{did_you_mean(recipe, RECIPES)}"
        )
    base = RECIPES[recipe] if isinstance(recipe, str) else recipe
    known, changes = base.model_dump(mode="json"), dict[str, Any]()
    for setting in settings or []:
        key, equals, value = setting.partition("=")
        if not equals:
            raise typer.BadParameter(f"--set {setting}: a setting is written KEY=VALUE.")
        _set(known, changes, key.strip(), _read_value(value.strip()))
    changes |= {key: value for key, value in options.items() if value is not None}
    try:
        change_config(base, changes)
    except InvalidRequest as exc:
        raise typer.BadParameter(exc.detail) from exc
    return changes


def read_gate(
    client: "Carina", before: GateConfig | None, *, dataset: str | None, split: Split | None, **rules: object
) -> GateConfig | None:
    """Return a gate with what is given changed; None where there was no gate and nothing is given.

    Raises `typer.BadParameter`, and what the client raises for the dataset's name or id.
    """
    given: dict[str, Any] = {name: rule for name, rule in rules.items() if rule is not None}
    values = {} if before is None else before.model_dump(mode="json")
    if dataset is not None:
        values["evaluation_dataset_id"] = client.find_dataset(dataset).id
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


def _set(known: dict[str, Any], changes: dict[str, Any], key: str, value: object) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        inner = known.get(parent)
        known = inner if isinstance(inner, dict) else {}
        changes = changes.setdefault(parent, {})
    if last not in known:
        names = [".".join([*parents, each]) for each in known]
        raise typer.BadParameter(f"--set {key}: a config has no such key.{did_you_mean(key, names)}")
    changes[last] = value


def _read_value(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text
