"""How a training's config is said on a command line: a recipe, and what is to differ from it."""

import json
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from deploy.cli.console import explain
from shared.suggestions import did_you_mean
from shared.training.config import TrainingConfig
from shared.training.recipes import RECIPES

Recipe = Annotated[str, typer.Option(help=f"Config to start from: {', '.join(RECIPES)}.")]
Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change one key of the recipe, as in `ema_decay=null` or `augmentation.gamma=[0.8,1.2]`; may be repeated.",
    ),
]
Architecture = Annotated[str | None, typer.Option("--arch", help="The network.", show_default="the recipe's")]
Epochs = Annotated[int | None, typer.Option(help="Passes over the training images.", show_default="the recipe's")]
BatchSize = Annotated[int | None, typer.Option(help="Images of one process in a step.", show_default="the recipe's")]
CanvasPx = Annotated[
    int | None, typer.Option(help="Side of the square that films are fitted onto.", show_default="the recipe's")
]
LearningRate = Annotated[float | None, typer.Option(help="For one process.", show_default="the recipe's")]
Weights = Annotated[
    str | None,
    typer.Option(
        help="`none`, `torchvision`, `model:NAME_OR_ID` or `object:SHA256`.",
        show_default="the recipe's",
    ),
]
Seed = Annotated[int | None, typer.Option(help="Of everything drawn at random.", show_default="the recipe's")]


def read_config(recipe: str | TrainingConfig, settings: list[str], **options: object) -> TrainingConfig:
    """Return a recipe with `KEY=VALUE` settings and then options applied; options that are None are not given.

    A value is JSON, or else a string; a key may have dots. Raises `typer.BadParameter`, which names what is wrong.
    """
    if isinstance(recipe, str) and recipe not in RECIPES:
        raise typer.BadParameter(
            f"There is no recipe {recipe!r}; there are {', '.join(RECIPES)}.{did_you_mean(recipe, RECIPES)}"
        )
    base = RECIPES[recipe] if isinstance(recipe, str) else recipe
    values = base.model_dump(mode="json")
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise typer.BadParameter(f"--set {setting}: a setting is written KEY=VALUE.")
        _set(values, key.strip(), _read_value(value.strip()))
    values |= {key: value for key, value in options.items() if value is not None}
    try:
        return TrainingConfig.model_validate(values)
    except ValidationError as exc:
        raise typer.BadParameter(explain(exc)) from exc


def _set(values: dict[str, Any], key: str, value: object) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        inner = values.get(parent)
        values = inner if isinstance(inner, dict) else {}
    if last not in values:
        known = [".".join([*parents, each]) for each in values]
        raise typer.BadParameter(f"--set {key}: a config has no such key.{did_you_mean(key, known)}")
    values[last] = value


def _read_value(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text
