"""What a training run is asked to do. The API checks it, the run stores it, the trainer follows it; torch-free."""

import hashlib
import json
from typing import Annotated, Literal, Self
from uuid import UUID

from pydantic import Field, model_validator

from shared.bounded import MOST_INT4, Bounded
from shared.detector.architectures import Architecture
from shared.detector.card import check_anchors

Split = Literal["train", "val", "test"]
Range = tuple[float, float]
_Few = Annotated[tuple[float, ...], Field(max_length=16)]


class Augmentation(Bounded):
    """How far a film may be changed, at random, each time it is trained on. The defaults change nothing.

    Ranges are drawn from evenly; factors on a logarithmic scale.
    """

    #: Chance of a mirror image. Off: hearts are on the left, and a mirrored film shows an anatomy of one in 10,000.
    flip_probability: float = Field(0.0, ge=0, le=1)
    rotate_deg: float = Field(0.0, ge=0, le=45)
    #: Of the canvas' side, each way.
    translate: float = Field(0.0, ge=0, le=0.5)
    #: Of the film's fit onto the canvas.
    scale: Range = (1.0, 1.0)
    #: Width over height, beyond `scale`.
    aspect: Range = (1.0, 1.0)
    gamma: Range = (1.0, 1.0)
    contrast: Range = (1.0, 1.0)
    #: Added to grey levels of 0 to 1.
    brightness: Range = (0.0, 0.0)
    #: Most standard deviation of Gaussian noise, in grey levels of 0 to 1.
    noise: float = Field(0.0, ge=0, le=0.5)
    #: Most black rectangles, each up to `cutout_side` of the canvas' side.
    cutouts: int = Field(0, ge=0, le=16)
    cutout_side: float = Field(0.15, gt=0, le=0.5)

    @model_validator(mode="after")
    def _ranges_rise(self) -> Self:
        for name in ("scale", "aspect", "gamma", "contrast"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(f"{name} must be two positive numbers, the smaller first")
        if self.brightness[0] > self.brightness[1]:
            raise ValueError("brightness must be two numbers, the smaller first")
        return self


class HeldOut(Bounded):
    """A split of another dataset whose images and patients a run must not learn from."""

    dataset_id: UUID
    split: Split


class TrainingConfig(Bounded):
    """Every choice of a training run; with the dataset's digest, the code and the machine it determines the model."""

    architecture: Architecture = "fasterrcnn_resnet50_fpn"
    #: None: as the model to start from has it, else the architecture.
    canvas_px: int | None = Field(None, ge=64, le=4096, multiple_of=32)
    #: One tuple of sizes per level of the pyramid, finest first. None: as for the canvas.
    anchor_sizes_px: Annotated[tuple[_Few, ...], Field(max_length=16)] | None = None
    anchor_aspect_ratios: tuple[float, ...] = Field((0.5, 1.0, 2.0), min_length=1, max_length=16)
    #: `none` (random), `torchvision` (ImageNet, downloaded once), `model:UUID`, or `object:SHA256` in the object store.
    initial_weights: Annotated[str, Field(pattern=r"^(none|torchvision|model:[0-9a-f-]{36}|object:[0-9a-f]{64})$")] = (
        "torchvision"
    )
    #: Stages of the backbone, first ones first, that stay as they came.
    frozen_stages: int = Field(0, ge=0, le=20)
    #: Whether the backbone's batch norm learns, statistics and all; each rank by itself, and the first one's are kept.
    #: Off: a small batch has no better statistics than those that the weights came with.
    train_batch_norm: bool = False

    epochs: int = Field(10, ge=1, le=10_000)
    #: Images an epoch, drawn anew; None: as many as there are training images.
    images_per_epoch: int | None = Field(None, ge=1, le=MOST_INT4)
    #: Images of one process in one step.
    batch_size: int = Field(4, ge=1, le=1024)
    #: Steps whose gradients are summed up before the weights move.
    accumulate: int = Field(1, ge=1, le=1024)
    #: Share of the images without a finding that enter an epoch.
    normal_rate: float = Field(1.0, ge=0, le=1)
    #: Classes on a smaller share of the images than this are repeated (LVIS, arXiv:1908.03195, 3.2); 0: none are.
    repeat_threshold: float = Field(0.0, ge=0, le=1)
    augmentation: Augmentation = Augmentation()

    optimizer: Literal["sgd", "adamw"] = "sgd"
    #: For one process; multiplied by their number (arXiv:1706.02677).
    learning_rate: float = Field(0.005, gt=0, le=10)
    scale_learning_rate: bool = True
    #: SGD's momentum, AdamW's first beta.
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(5e-4, ge=0, le=1)
    schedule: Literal["cosine", "multistep"] = "cosine"
    warmup_epochs: float = Field(1.0, ge=0, le=10_000)
    #: For multistep: epochs after which the rate is multiplied by `gamma`.
    milestones: tuple[float, ...] = Field((), max_length=100)
    gamma: float = Field(0.1, gt=0, lt=1)
    clip_norm: float | None = Field(10.0, gt=0, le=1e6)
    #: Decay a step of the weights' moving average, which becomes the model. None: the last weights do.
    ema_decay: float | None = Field(0.998, ge=0, lt=1)

    #: `auto`: bf16 where the device gains.
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    channels_last: bool = True
    #: Processes that read and augment films, for each rank; None: as many as there are free cores, at most 8.
    loader_workers: int | None = Field(None, ge=0, le=64)
    seed: int = Field(0, ge=0, lt=2**31)
    checkpoint_every_min: float = Field(10.0, gt=0, le=10_080)

    #: On the model's card.
    score_threshold: float = Field(0.05, ge=0, le=1)
    nms_iou: float = Field(0.5, gt=0, le=1)
    max_detections: int = Field(100, ge=1, le=1000)

    #: What the model is evaluated on when training is done; None: nothing.
    evaluate_split: Split | None = "val"
    held_out: tuple[HeldOut, ...] = Field((), max_length=100)

    @model_validator(mode="after")
    def _ends_meet(self) -> Self:
        if self.schedule == "multistep" and not self.milestones:
            raise ValueError("a multistep schedule needs milestones")
        if self.warmup_epochs > self.epochs:
            raise ValueError("the warm-up is longer than the training")
        check_anchors(self.architecture, self.anchor_sizes_px, self.anchor_aspect_ratios)
        if self.evaluate_split == "train":
            raise ValueError("a model is not evaluated on what it was trained on")
        return self

    @property
    def digest(self) -> str:
        """SHA-256 of the config as canonical JSON."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


class EvaluationConfig(Bounded):
    """How a model is evaluated on a split."""

    split: Split = "val"
    #: Boxes below are not looked at; low ones never hurt an average precision, and it needs them.
    score_threshold: float = Field(0.001, ge=0, le=1)
    max_detections: int = Field(100, ge=1, le=1000)
    batch_size: int = Field(8, ge=1, le=256)
    #: Resamples of the patients behind each 95% interval.
    bootstrap_samples: int = Field(1000, ge=0, le=100_000)
    seed: int = Field(0, ge=0, lt=2**31)


class GateConfig(Bounded):
    """When a candidate takes the active model's place."""

    evaluation_dataset_id: UUID
    evaluation: EvaluationConfig = EvaluationConfig()
    #: The lower bound of the gain in mAP@0.4 has to be above this.
    least_gain: float = Field(0.0, ge=-1, le=1)
    #: Of the gain's interval, by paired bootstrap over patients.
    confidence: float = Field(0.95, gt=0.5, lt=1)
    #: No class with at least `counted_from_boxes` true boxes may lose more average precision than this.
    most_class_drop: float = Field(0.05, ge=0, le=1)
    counted_from_boxes: int = Field(20, ge=1, le=MOST_INT4)
    promote: bool = True
