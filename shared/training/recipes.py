"""Training recipes by name: whole configs that `--recipe` starts from and single options change."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from shared.errors import InvalidRequest
from shared.suggestions import did_you_mean
from shared.training.config import Augmentation, TrainingConfig

#: What torchvision's detection reference does on a small set (references/detection, scaled to batch 4): its own
#: anchors, and MobileNetV2 with its batch norm as it comes.
REFERENCE = TrainingConfig(
    architecture="fasterrcnn_mobilenet_v2_fpn",
    canvas_px=384,
    anchor_sizes_px=((32,), (64,), (128,), (256,), (512,)),
    train_batch_norm=True,
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

#: For a few hundred films with large findings, on a CPU: where a third of them has one, as many passes over images as
#: `REFERENCE`. Compared by two-fold cross-validation, patients apart, inside the 288 training films of the NIH/RSNA
#: set, with half the passes and one seed: AP@0.4 0.385 at an `nms_iou` of 0.5, pooled over the folds. Mirroring gave
#: 0.383, batches of 2 0.352 and anchors from 32 px up 0.376 (these two with mirroring), where the difference of two
#: runs has a standard deviation of 0.02 to 0.03: none was taken up. What is not named here was not compared.
SMALL_SET = TrainingConfig(
    # Its pyramid begins at stride 8, for no box there is narrower than 20 px on this canvas; a pass costs a tenth.
    architecture="carina_small",
    canvas_px=384,
    # Every second film of an epoch has a finding; there are more epochs for there are fewer films in each.
    normal_rate=0.5,
    epochs=15,
    batch_size=4,
    # The reference's own settings reached 0.015 on this architecture, and only with clipped gradients. Which of the
    # differences to them matters most was not looked into.
    optimizer="adamw",
    learning_rate=3e-4,
    weight_decay=0.02,
    warmup_epochs=1.5,
    # Over about the last 100 of some 700 steps.
    ema_decay=0.99,
    # Edges and texture look the same on films as on photographs.
    frozen_stages=2,
    augmentation=Augmentation(
        rotate_deg=8,
        translate=0.06,
        scale=(0.85, 1.18),
        aspect=(0.9, 1.11),
        gamma=(0.75, 1.33),
        contrast=(0.8, 1.25),
        brightness=(-0.08, 0.08),
        noise=0.02,
    ),
    # Opacities seldom overlap. In three runs of four this was better than 0.5, by 0.01 to 0.02.
    nms_iou=0.4,
)

#: From a trained model on (`--weights model:ID`), when new films join: gently, and soon done. For the shipped model's
#: network; name another with `--arch`.
FINE_TUNE = TrainingConfig(
    architecture="carina_small",
    initial_weights="none",
    frozen_stages=1,
    epochs=5,
    batch_size=8,
    optimizer="adamw",
    learning_rate=2e-4,
    weight_decay=0.02,
    warmup_epochs=0.3,
    ema_decay=0.97,
    augmentation=Augmentation(translate=0.04, scale=(0.9, 1.1), gamma=(0.8, 1.25), contrast=(0.85, 1.15), noise=0.01),
    score_threshold=0.3,
)

RECIPES = {"default": TrainingConfig(), "reference": REFERENCE, "small_set": SMALL_SET, "fine_tune": FINE_TUNE}
#: These begin from a trained model; from any other weights they end with a useless one.
NEED_A_MODEL = frozenset({"fine_tune"})


def config_of(recipe: str, changes: Mapping[str, Any]) -> TrainingConfig:
    """Return a recipe with some of its keys changed, inside `augmentation` too; raises `InvalidRequest`."""
    if recipe not in RECIPES:
        meant = did_you_mean(recipe, RECIPES)
        raise InvalidRequest(
            f"There is no recipe {recipe!r}; there are {', '.join(RECIPES)}.{meant}", parameter="recipe"
        )
    config = change_config(RECIPES[recipe], changes)
    require_base(recipe, config)
    return config


def require_base(recipe: str, config: TrainingConfig) -> None:
    """Raise `InvalidRequest` where a recipe needs a trained model to start from, and the config names none."""
    if recipe in NEED_A_MODEL and not config.initial_weights.startswith(("model:", "object:")):
        said = f"The recipe {recipe} starts from a trained model: name it in initial_weights, as `model:ID`."
        raise InvalidRequest(said, parameter="config.initial_weights")


def change_config(config: TrainingConfig, changes: Mapping[str, Any]) -> TrainingConfig:
    """Return a config with some of its keys changed, inside `augmentation` too; raises `InvalidRequest`."""
    try:
        return TrainingConfig.model_validate(_merge(config.model_dump(mode="json"), changes))
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        said = f"The config is not valid: {where + ': ' if where else ''}{first['msg'].removeprefix('Value error, ')}."
        raise InvalidRequest(said, parameter="config") from exc


def _merge(values: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(values)
    for key, change in changes.items():
        both = isinstance(change, Mapping) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], change) if both else change
    return merged
