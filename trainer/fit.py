"""A complete training: from a dataset and a config to a model card and its weights."""

import hashlib
import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from shared.detector.card import ModelCard
from shared.detector.families import build, family_of, plan_of
from shared.detector.families.family import Plan
from shared.detector.weights import encode_weights
from shared.errors import PermanentError
from shared.training.config import TrainingConfig
from shared.version import code_version
from trainer.datasets.dataset import Dataset
from trainer.engine import Trainee, train_one_epoch
from trainer.loader import Loader, ReadRendition
from trainer.ranks import Ranks
from trainer.sampling import plan_epoch, shares, steps_of


class NothingToTrainOn(PermanentError):
    """The training split of the dataset contains no box."""

    code = "nothing_to_train_on"


@dataclass(frozen=True)
class Position:
    """The position of a training: the next step to do."""

    epoch: int = 0
    step: int = 0
    #: Steps over all epochs.
    steps_done: int = 0


@dataclass(frozen=True)
class Progress:
    """The outcome of a step."""

    position: Position
    steps_in_epoch: int
    #: Images of all ranks in this step.
    images: int
    #: The losses, their sum as `loss`, and `learning_rate`; after an epoch also the figures of `measure`.
    figures: dict[str, float]


class Checkpointer(Protocol):
    """Stores the state of a training, and decides when to store it."""

    def load(self) -> bytes | None:
        """Return the last checkpoint."""

    def is_due(self, progress: Progress) -> bool:
        """Return whether to save now. Called on each rank after each step; the result is the same on all ranks."""

    def save(self, checkpoint: bytes, progress: Progress) -> None:
        """Store a checkpoint. Called only on the first rank."""

    def check(self, progress: Progress) -> None:
        """Raise an exception to end the training here. Called on each rank after each step, saved or not."""


def draft_card(config: TrainingConfig, dataset: Dataset, name: str, base: ModelCard | None = None) -> ModelCard:
    """Return the card of the future model, without its weights and metrics.

    The normalisation of a base model and its batch norm's epsilon are kept; for the same architecture also its canvas
    and anchors, unless the config sets them. Raises `NothingToTrainOn` if the dataset has no class.
    """
    if not dataset.categories:
        raise NothingToTrainOn("The dataset has no class: it can be evaluated on, and not trained on.")
    kept = {} if base is None else base.model_dump(include={"image_mean", "image_std", "batch_norm_eps"})
    shape: Plan | ModelCard = plan_of(config.architecture)
    ratios = config.anchor_aspect_ratios
    if base is not None and base.architecture == config.architecture:
        shape = base
        if config.anchor_sizes_px is None and ratios == TrainingConfig().anchor_aspect_ratios:
            ratios = base.anchor_aspect_ratios
    return ModelCard(
        name=name,
        architecture=config.architecture,
        categories=dataset.categories,
        canvas_px=config.canvas_px or shape.canvas_px,
        anchor_sizes_px=config.anchor_sizes_px or shape.anchor_sizes_px,
        anchor_aspect_ratios=ratios,
        score_threshold=config.score_threshold,
        nms_iou=config.nms_iou,
        max_detections=config.max_detections,
        rendition_version=dataset.rendition_version,
        weights_sha256="0" * 64,
        trained_on=f"dataset {dataset.name}, {len(dataset.of('train').images)} images",
        code_version=code_version(),
        **kept,
    )


def fit(
    config: TrainingConfig,
    dataset: Dataset,
    card: ModelCard,
    initialise: Callable[[nn.Module], None],
    read: ReadRendition,
    ranks: Ranks,
    checkpointer: Checkpointer,
    measure: Callable[[nn.Module], dict[str, float]] = lambda _: {},
) -> tuple[ModelCard, bytes]:
    """Train on the images of the training split, from the last checkpoint if there is one. Returns the finished model.

    `initialise` loads the initial weights into a model. `measure` evaluates the model on each rank after each epoch,
    and its figures are added to those of the last step. Raises `NothingToTrainOn`, `NonFiniteLoss` and the exceptions
    of the checkpointer.
    """
    training_images = dataset.of("train").images
    if not any(len(image.category_ids) for image in training_images):
        raise NothingToTrainOn
    torch.manual_seed(config.seed)
    model = build(card)
    initialise(model)
    body = family_of(card.architecture).body(model)
    if config.train_batch_norm:
        thaw_batch_norm(body)
    freeze(body, config.frozen_stages)
    trainee = Trainee(model, card, config, ranks)
    together = config.batch_size * config.accumulate * ranks.world
    position = _resume(trainee, checkpointer.load(), together)
    loader = Loader(training_images, read, card, config.augmentation, _loader_workers(config, ranks))
    try:
        for epoch in range(position.epoch, config.epochs):
            plan = plan_epoch(training_images, config, epoch)
            step_count = steps_of(len(plan), config, ranks.world)
            first = position.step if epoch == position.epoch else 0
            batches = loader.batches(shares(plan, config, epoch, ranks.rank, ranks.world, first))
            steps = train_one_epoch(trainee, batches, epoch, first, step_count)
            for step, figures in enumerate(steps, start=first + 1):
                at = (epoch, step) if step < step_count else (epoch + 1, 0)
                position = Position(*at, steps_done=position.steps_done + 1)
                images = min(together, len(plan) - (step - 1) * together)
                measured = measure(trainee.average.model) if step == step_count else {}
                progress = Progress(position, step_count, images, figures | measured)
                if checkpointer.is_due(progress) and ranks.is_first:
                    checkpointer.save(_pack(trainee, position, together), progress)
                checkpointer.check(progress)
    finally:
        loader.close()
    weights = encode_weights(trainee.average.model.state_dict(), torch.float32)
    return card.model_copy(update={"weights_sha256": hashlib.sha256(weights).hexdigest()}), weights


def freeze(body: nn.Module, stages: int) -> None:
    """Exclude the first stages of a backbone from training."""
    for child in list(body.children())[:stages]:
        child.requires_grad_(False)


def thaw_batch_norm(network: nn.Module) -> None:
    """Replace frozen batch norm by trainable batch norm, with the same values under the same names."""
    for parent in list(network.modules()):
        for name, norm in list(parent.named_children()):
            if isinstance(norm, FrozenBatchNorm2d):
                learning = nn.BatchNorm2d(len(norm.weight), eps=norm.eps)
                learning.load_state_dict(norm.state_dict(), strict=False)
                setattr(parent, name, learning)


def _pack(trainee: Trainee, position: Position, together: int) -> bytes:
    place = {"epoch": position.epoch, "step": position.step, "steps_done": position.steps_done, "together": together}
    buffer = io.BytesIO()
    torch.save({"position": place, **trainee.state_dict()}, buffer)
    return buffer.getvalue()


def _resume(trainee: Trainee, checkpoint: bytes | None, together: int) -> Position:
    """Restore a checkpoint. With another number of ranks, continue at the step that starts there or just before."""
    if checkpoint is None:
        return Position()
    state = torch.load(io.BytesIO(checkpoint), map_location=trainee.ranks.device, weights_only=True)
    trainee.load_state_dict(state)
    place = state["position"]
    return Position(place["epoch"], place["step"] * place["together"] // together, place["steps_done"])


def _loader_workers(config: TrainingConfig, ranks: Ranks) -> int:
    if config.loader_workers is not None:
        return config.loader_workers
    return max(1, min(8, (os.cpu_count() or 1) // ranks.world - 1))
