"""Training recipes by name: whole configs that `--recipe` starts from and single options change."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from shared.errors import InvalidRequest
from shared.training import TrainingConfig

#: What torchvision's detection reference does on a small set (references/detection, scaled to batch 4).
REFERENCE = TrainingConfig(
    architecture="fasterrcnn_mobilenet_v2_fpn",
    canvas_px=384,
    epochs=10,
    batch_size=4,
    optimizer="sgd",
    learning_rate=0.005,
    momentum=0.9,
    weight_decay=5e-4,
    schedule="multistep",
    milestones=(3, 6, 9),
    gamma=0.1,
    warmup_epochs=1,
    clip_norm=None,
    ema_decay=None,
)

RECIPES = {"default": TrainingConfig(), "reference": REFERENCE}


def config_of(recipe: str, changes: Mapping[str, Any]) -> TrainingConfig:
    """Return a recipe with some of its keys changed, inside `augmentation` too; raises `InvalidRequest`."""
    if recipe not in RECIPES:
        raise InvalidRequest(f"There is no recipe {recipe!r}; there are {', '.join(RECIPES)}.")
    try:
        return TrainingConfig.model_validate(_merge(RECIPES[recipe].model_dump(mode="json"), changes))
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise InvalidRequest(f"The config is not valid: {where + ': ' if where else ''}{first['msg']}.") from exc


def _merge(values: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(values)
    for key, change in changes.items():
        both = isinstance(change, Mapping) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], change) if both else change
    return merged
