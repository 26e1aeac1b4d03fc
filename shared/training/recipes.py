"""Training recipes by name: complete configs for `--recipe`, in which single options can be changed."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from shared.errors import InvalidRequest
from shared.suggestions import did_you_mean
from shared.training.config import Augmentation, TrainingConfig

#: The settings of torchvision's detection reference for a small set (references/detection, scaled to batches of 4):
#: its own anchors, and MobileNetV2 with a trained batch norm.
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

#: For a few hundred images with large findings, on a CPU. If a third of the images has a finding, it processes as many
#: images as `REFERENCE`. Measured by two-fold cross-validation with separate patients on the 288 training images of the
#: NIH/RSNA set, with half the epochs and one seed: AP@0.4 0.385 at an `nms_iou` of 0.5, pooled over the folds.
#: Mirroring gave 0.383, batches of 2 gave 0.352, and anchors from 32 px up gave 0.376 (the last two with mirroring).
#: The difference of two runs has a standard deviation of 0.02 to 0.03, so none of these was adopted. Other settings
#: were not compared.
SMALL_SET = TrainingConfig(
    # Its pyramid begins at stride 8, because no box is narrower than 20 px on this canvas. A pass costs a tenth.
    architecture="carina_small",
    canvas_px=384,
    # Half of the images in an epoch have a finding. An epoch has fewer images, so there are more epochs.
    normal_rate=0.5,
    epochs=15,
    batch_size=4,
    # The settings of `REFERENCE` reached 0.015 on this architecture, and only with clipped gradients. It is not known
    # which difference matters most.
    optimizer="adamw",
    learning_rate=3e-4,
    weight_decay=0.02,
    warmup_epochs=1.5,
    # An average over about the last 100 of some 700 steps.
    ema_decay=0.99,
    # Edges and texture look the same on radiographs as on photographs.
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
    # Opacities rarely overlap. In three of four runs this was better than 0.5 by 0.01 to 0.02.
    nms_iou=0.4,
)

#: For VinBigData or VinDr-CXR at full size, on GPUs. No setting was compared on these images: size, shift, scale,
#: rotation, shear, exposure, schedule and epochs are those of the challenge's second place for its Cascade R-CNN with
#: ResNet-50. Two sizes a level from 16 px on and five ratios leave 6% of the nodules of the label table without an
#: anchor of IoU 0.5; torchvision's own anchors leave 34%.
VINBIGDATA = TrainingConfig(
    architecture="fasterrcnn_resnet50_fpn",
    canvas_px=1024,
    anchor_sizes_px=((16, 23), (32, 45), (64, 91), (128, 181), (256, 362)),
    anchor_aspect_ratios=(1 / 3, 0.5, 1.0, 2.0, 3.0),
    # Half of the images in an epoch have a finding; in the dataset it is 29%.
    normal_rate=0.5,
    frozen_stages=1,
    epochs=10,
    augmentation=Augmentation(
        rotate_deg=20,
        shear_deg=10,
        translate=0.1,
        scale=(0.8, 1.2),
        contrast=(0.75, 1.25),
        brightness=(-0.25, 0.25),
    ),
    abnormality_loss=0.2,
    # Consensus boxes were fused at this overlap.
    nms_iou=0.4,
)

#: Continues from a trained model (`--weights model:ID`) after new images were added: a low learning rate, few epochs.
#: For the architecture of the shipped model; `--arch` selects another one.
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

RECIPES = {
    "default": TrainingConfig(),
    "reference": REFERENCE,
    "small_set": SMALL_SET,
    "vinbigdata": VINBIGDATA,
    "fine_tune": FINE_TUNE,
}
#: Recipes that must start from a trained model. From other weights they produce a useless model.
NEED_A_MODEL = frozenset({"fine_tune"})


def config_of(recipe: str, changes: Mapping[str, Any]) -> TrainingConfig:
    """Return a recipe with changed keys, also inside `augmentation`; raise `InvalidRequest`."""
    if recipe not in RECIPES:
        meant = did_you_mean(recipe, RECIPES)
        raise InvalidRequest(
            f"There is no recipe {recipe!r}; there are {', '.join(RECIPES)}.{meant}", parameter="recipe"
        )
    config = change_config(RECIPES[recipe], changes)
    require_base(recipe, config)
    return config


def require_base(recipe: str, config: TrainingConfig) -> None:
    """Raise `InvalidRequest` if a recipe must start from a trained model and the config names none."""
    if recipe in NEED_A_MODEL and not config.initial_weights.startswith(("model:", "object:")):
        said = f"The recipe {recipe} starts from a trained model: name it in initial_weights, as `model:ID`."
        raise InvalidRequest(said, parameter="config.initial_weights")


def change_config(config: TrainingConfig, changes: Mapping[str, Any]) -> TrainingConfig:
    """Return a config with changed keys, also inside `augmentation`; raise `InvalidRequest`."""
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
