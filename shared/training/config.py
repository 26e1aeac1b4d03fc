"""The configs of trainings, evaluations and the gate. The API checks them, rows store them, the trainer applies them.

Does not import torch.
"""

import hashlib
import json
from typing import Annotated, Literal, Self
from uuid import UUID

from pydantic import Field, model_validator

from shared.bounded import MAX_INT4, Bounded
from shared.detector.architectures import Architecture
from shared.detector.card import check_anchors

Split = Literal["train", "val", "test"]
Range = tuple[float, float]
_Few = Annotated[tuple[float, ...], Field(max_length=16)]


class Augmentation(Bounded):
    """The random changes to an image, each time it is used in training. The defaults change nothing.

    Values are drawn uniformly from their range; factors on a logarithmic scale.
    """

    #: Probability of mirroring. Off: the heart is on the left, except in one of 10,000 people.
    flip_probability: float = Field(0.0, ge=0, le=1)
    rotate_deg: float = Field(0.0, ge=0, le=45)
    #: The largest angle by which vertical lines are tilted, in each direction; horizontal lines stay.
    shear_deg: float = Field(0.0, ge=0, le=45)
    #: The largest shift in each direction, as a fraction of the canvas' side.
    translate: float = Field(0.0, ge=0, le=0.5)
    #: Factor on the size at which the image fits the canvas.
    scale: Range = (1.0, 1.0)
    #: Factor on the ratio of width to height, in addition to `scale`.
    aspect: Range = (1.0, 1.0)
    gamma: Range = (1.0, 1.0)
    contrast: Range = (1.0, 1.0)
    #: Added to grey levels in 0–1.
    brightness: Range = (0.0, 0.0)
    #: The largest standard deviation of Gaussian noise, for grey levels in 0–1.
    noise: float = Field(0.0, ge=0, le=0.5)
    #: Maximum number of black rectangles; `cutout_side` is their longest side as a fraction of the canvas' side.
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


class Labels(Bounded):
    """What the boxes of several readers count in training. The defaults count each box fully."""

    #: A box counts fully (`none`), as the share of the readers of its image who drew it (`agreement`), or as its
    #: probability of being a true finding, which is in the dataset (`probability`). Its losses are multiplied by that.
    confidence: Literal["none", "agreement", "probability"] = "none"
    #: Whether a box that only one of several readers drew is a region to ignore: neither a finding nor background.
    ignore_lone: bool = False
    #: Whether each class of a place is scored by itself (sigmoid). Then the confidence is the target of the class, and
    #: a place where boxes of several classes overlap has several. Else classes exclude each other (softmax).
    multi_label: bool = False
    #: Weights of readers, 1 for the others. They count in `agreement`; a box counts at most as much as the largest
    #: weight of its readers, and with weight 0 it is a region to ignore.
    reader_weights: dict[str, Annotated[float, Field(ge=0, le=100)]] = Field({}, max_length=100)

    @property
    def need_readers(self) -> bool:
        """Whether the training images must state who drew each box."""
        return self.confidence != "none" or self.ignore_lone or bool(self.reader_weights)


class HeldOut(Bounded):
    """A split of another dataset. A training must not use its images and patients."""

    dataset_id: UUID
    split: Split


class TrainingConfig(Bounded):
    """All settings of a training. They determine the model, with the dataset's digest, the code and the machine."""

    architecture: Architecture = "fasterrcnn_resnet50_fpn"
    #: None: that of the initial model, else the default of the architecture.
    canvas_px: int | None = Field(None, ge=64, le=4096, multiple_of=32)
    #: One tuple of sizes for each level of the pyramid, finest first. None: the same default as for `canvas_px`.
    anchor_sizes_px: Annotated[tuple[_Few, ...], Field(max_length=16)] | None = None
    anchor_aspect_ratios: tuple[float, ...] = Field((0.5, 1.0, 2.0), min_length=1, max_length=16)
    #: `none` (random), `torchvision` (ImageNet, downloaded once), `model:UUID`, or `object:SHA256` in the object store.
    initial_weights: Annotated[str, Field(pattern=r"^(none|torchvision|model:[0-9a-f-]{36}|object:[0-9a-f]{64})$")] = (
        "torchvision"
    )
    #: The number of first stages of the backbone whose weights are not trained.
    frozen_stages: int = Field(0, ge=0, le=20)
    #: Whether the batch norm of the backbone is trained, including its statistics. Each rank trains its own; those of
    #: the first rank are kept. Off: the statistics of the initial weights are better than those of a small batch.
    train_batch_norm: bool = False
    #: Whether batch norm uses the statistics of all ranks together: slower, and only on GPUs.
    sync_batch_norm: bool = False

    epochs: int = Field(10, ge=1, le=10_000)
    #: Images per epoch, drawn again for each; None: the number of training images.
    images_per_epoch: int | None = Field(None, ge=1, le=MAX_INT4)
    #: Images per process and step.
    batch_size: int = Field(4, ge=1, le=1024)
    #: Steps whose gradients are added before the weights are updated.
    accumulate: int = Field(1, ge=1, le=1024)
    #: The fraction of images without a finding that an epoch contains.
    normal_rate: float = Field(1.0, ge=0, le=1)
    #: Images of classes on a smaller fraction of images than this are repeated (LVIS, arXiv:1908.03195, 3.2); 0: none.
    repeat_threshold: float = Field(0.0, ge=0, le=1)
    augmentation: Augmentation = Augmentation()
    labels: Labels = Labels()

    #: Weight of the loss of the abnormality head, which estimates the probability that an image shows any finding. 0:
    #: the model has no such head. None: as the initial model, with weight 0.2 if it has one.
    abnormality_loss: float | None = Field(None, ge=0, le=100)
    #: For the model's card. None: that of the initial model, else 0.25.
    abnormality_exponent: float | None = Field(None, ge=0, le=4)

    optimizer: Literal["sgd", "adamw"] = "sgd"
    #: For one process; multiplied by the number of processes if `scale_learning_rate` (arXiv:1706.02677).
    learning_rate: float = Field(0.005, gt=0, le=10)
    scale_learning_rate: bool = True
    #: The momentum of SGD, or the first beta of AdamW.
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(5e-4, ge=0, le=1)
    schedule: Literal["cosine", "multistep"] = "cosine"
    warmup_epochs: float = Field(1.0, ge=0, le=10_000)
    #: The warm-up in optimizer steps, instead of `warmup_epochs`.
    warmup_steps: int | None = Field(None, ge=0, le=MAX_INT4)
    #: For `multistep`: epochs after which the learning rate is multiplied by `gamma`.
    milestones: tuple[float, ...] = Field((), max_length=100)
    gamma: float = Field(0.1, gt=0, lt=1)
    clip_norm: float | None = Field(10.0, gt=0, le=1e6)
    #: Decay per step of the moving average of the weights, which becomes the model. None: the last weights do.
    ema_decay: float | None = Field(0.998, ge=0, lt=1)

    #: `auto`: bf16 if it is faster on the device.
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    channels_last: bool = True
    #: Processes per rank that read and augment images; None: one per free core, at most 8.
    loader_workers: int | None = Field(None, ge=0, le=64)
    seed: int = Field(0, ge=0, lt=2**31)
    #: Minutes between two checkpoints; there is also one after each epoch. None: by their measured cost, at most 2% of
    #: the time, and within 2 minutes if that allows it.
    checkpoint_every_min: float | None = Field(None, gt=0, le=10_080)

    #: For the model's card.
    score_threshold: float = Field(0.05, ge=0, le=1)
    nms_iou: float = Field(0.5, gt=0, le=1)
    max_detections: int = Field(100, ge=1, le=1000)

    #: The split on which the model is evaluated after the training; None: no evaluation.
    evaluate_split: Split | None = "val"
    held_out: tuple[HeldOut, ...] = Field((), max_length=100)

    @model_validator(mode="after")
    def _ends_meet(self) -> Self:
        if self.schedule == "multistep" and not self.milestones:
            raise ValueError("a multistep schedule needs milestones")
        if self.warmup_steps is None and self.warmup_epochs > self.epochs:
            raise ValueError("the warm-up is longer than the training")
        if self.sync_batch_norm and not self.train_batch_norm:
            raise ValueError("sync_batch_norm needs train_batch_norm, because no batch norm is trained without it")
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
    #: Boxes with a lower score are ignored. Keep it low: the average precision needs boxes with low scores.
    score_threshold: float = Field(0.001, ge=0, le=1)
    max_detections: int = Field(100, ge=1, le=1000)
    batch_size: int = Field(8, ge=1, le=256)
    #: The number of resamples of the patients for each 95% interval.
    bootstrap_samples: int = Field(1000, ge=0, le=100_000)
    seed: int = Field(0, ge=0, lt=2**31)


GateMetric = Literal["map40", "map40_with_no_finding"]


class GateConfig(Bounded):
    """The conditions under which a candidate replaces the active model."""

    evaluation_dataset_id: UUID
    evaluation: EvaluationConfig = EvaluationConfig()
    #: What is compared: mAP@0.4 over the classes, or the same with "No finding" as one more class (VinBigData score).
    metric: GateMetric = "map40"
    #: The lower bound of the gain in the metric must be above this.
    least_gain: float = Field(0.0, ge=-1, le=1)
    #: Confidence level of the gain's interval, by paired bootstrap over patients.
    confidence: float = Field(0.95, gt=0.5, lt=1)
    #: No class with at least `counted_from_boxes` annotations may lose more average precision than this.
    most_class_drop: float = Field(0.05, ge=0, le=1)
    counted_from_boxes: int = Field(20, ge=1, le=MAX_INT4)
    promote: bool = True
