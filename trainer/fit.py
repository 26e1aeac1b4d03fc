"""A complete training: from a dataset and a config to a model card and its weights."""

import hashlib
import io
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils._pytree import tree_map
from torchvision.ops import FrozenBatchNorm2d

from shared.detector.card import DEFAULT_ABNORMALITY_EXPONENT, ModelCard
from shared.detector.families import build, family_of, plan_of
from shared.detector.families.family import Plan
from shared.detector.weights import encode_weights
from shared.errors import PermanentError
from shared.training.config import TrainingConfig
from shared.version import code_version
from trainer.datasets.dataset import Dataset, DatasetImage
from trainer.engine import Trainee, train_one_epoch
from trainer.labels import require_readers
from trainer.loader import Loader, ReadRendition
from trainer.ranks import Ranks
from trainer.sampling import needed_by, plan_epoch, resumed_step, shares, steps_of
from trainer.task import Interrupted


class NothingToTrainOn(PermanentError):
    """The training split of the dataset contains no box."""

    code = "nothing_to_train_on"


class SyncBatchNormUnavailable(PermanentError):
    """Synchronised batch norm needs a GPU for each rank. Set sync_batch_norm to false, or train on GPUs."""

    code = "sync_batch_norm_unavailable"


@dataclass(frozen=True)
class Position:
    """The position of a training: the next step to do."""

    epoch: int = 0
    step: int = 0
    #: Steps over all epochs.
    steps_done: int = 0


@dataclass(frozen=True)
class Progress:
    """The outcome of a step, or of the measurement after an epoch."""

    position: Position
    steps_in_epoch: int
    #: Images of all ranks in this step; 0 for a measurement.
    images: int
    #: The losses, their sum as `loss`, and `learning_rate`; or the figures of `measure`.
    figures: dict[str, float]


#: Copies the state of a training to memory, and returns a function that encodes the copy, in any thread.
Snapshot = Callable[[], Callable[[], bytes]]


class Checkpointer(Protocol):
    """Stores the state of a training, and decides when to store it."""

    def load(self) -> bytes | None:
        """Return the last checkpoint. Called on each rank."""

    def must_stop(self) -> bool:
        """Return whether this rank was asked to stop. Called on each rank in each step."""

    def check(self, progress: Progress) -> None:
        """Raise an exception to end the training here. Called on each rank after each step and each measurement."""

    def is_due(self, progress: Progress) -> bool:
        """Return whether to save now. Called only on the first rank, after each step and each measurement."""

    def save(self, snapshot: Snapshot, progress: Progress) -> None:
        """Store a checkpoint, possibly after this call returns. Called only on the first rank."""


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
        abnormality_exponent=_abnormality_exponent(config, base),
        categories=dataset.categories,
        canvas_px=config.canvas_px or shape.canvas_px,
        anchor_sizes_px=config.anchor_sizes_px or shape.anchor_sizes_px,
        anchor_aspect_ratios=ratios,
        score_threshold=config.score_threshold,
        nms_iou=config.nms_iou,
        max_detections=config.max_detections,
        multi_label=config.labels.multi_label,
        rendition_version=dataset.rendition_version,
        weights_sha256="0" * 64,
        trained_on=f"dataset {dataset.name}, {len(dataset.of('train').images)} images",
        code_version=code_version(),
        **kept,
    )


def _abnormality_exponent(config: TrainingConfig, base: ModelCard | None) -> float | None:
    """Return the exponent for the card; None if the model gets no abnormality head."""
    given = base.abnormality_exponent if base else None
    if not (given is not None if config.abnormality_loss is None else config.abnormality_loss):
        return None
    chosen = given if config.abnormality_exponent is None else config.abnormality_exponent
    return DEFAULT_ABNORMALITY_EXPONENT if chosen is None else chosen


def fit(
    config: TrainingConfig,
    dataset: Dataset,
    card: ModelCard,
    initialise: Callable[[nn.Module], None],
    read: ReadRendition,
    ranks: Ranks,
    checkpointer: Checkpointer,
    measure: Callable[[nn.Module], dict[str, float]] = lambda _: {},
    warm_up: Callable[[Sequence[DatasetImage]], None] = lambda _: None,
) -> tuple[ModelCard, bytes]:
    """Train on the images of the training split, from the last checkpoint if there is one. Returns the finished model.

    `initialise` loads the initial weights into a model. `measure` evaluates the model on each rank after each epoch; it
    raises `Interrupted` on all ranks if one of them was asked to stop. `warm_up` gets the images that this rank will
    read, in order. Raises `NothingToTrainOn`, `NonFiniteLoss`, `SyncBatchNormUnavailable`, `Interrupted` if a rank was
    asked to stop, and the exceptions of the checkpointer.
    """
    training_images = dataset.of("train").images
    if not any(len(image.category_ids) for image in training_images):
        raise NothingToTrainOn
    require_readers(training_images, config.labels)
    trainee = Trainee(_build_model(config, card, initialise, ranks), card, config, ranks)
    started, is_measured, machines = _resume(trainee, checkpointer.load())
    position = started

    def measure_here() -> None:
        step_count = steps_of(len(plan_epoch(training_images, config, position.epoch - 1)), config, ranks.world)
        _measure(trainee, position, machines, step_count, measure, checkpointer)

    if not is_measured:  # the previous attempt ended while it measured
        measure_here()
    loader = Loader(training_images, read, card, config.augmentation, _loader_workers(config, ranks), config.labels)
    try:
        while position.epoch < config.epochs:
            # Within an epoch, the order stays even if machines have joined or left.
            machines = machines if position.step else ranks.machines
            plan = plan_epoch(training_images, config, position.epoch, machines)
            if position == started:
                warm_up(needed_by(ranks, plan, training_images, config, position.step))
            for progress, stop in _train_to_end_of_epoch(trainee, loader, plan, position, checkpointer.must_stop):
                position = progress.position
                checkpointer.check(progress)
                if ranks.is_first and (stop or checkpointer.is_due(progress)):
                    # After an epoch, the state is copied before the measurement.
                    copied = partial(copy_state, trainee, position, machines, is_measured=position.step > 0)
                    checkpointer.save(copied, progress)
                if stop:
                    raise Interrupted
            measure_here()
    finally:
        loader.close()
    weights = encode_weights(trainee.average.model.state_dict(), torch.float32)
    return card.model_copy(update={"weights_sha256": hashlib.sha256(weights).hexdigest()}), weights


def _train_to_end_of_epoch(
    trainee: Trainee, loader: Loader, plan: NDArray[np.int64], position: Position, must_stop: Callable[[], bool]
) -> Iterator[tuple[Progress, bool]]:
    """Do the remaining steps of an epoch. Yields each outcome, and whether a rank was asked to stop."""
    config, ranks, epoch = trainee.config, trainee.ranks, position.epoch
    step_count = steps_of(len(plan), config, ranks.world)
    batches = loader.batches(shares(plan, config, epoch, ranks.rank, ranks.world, position.step))
    outcomes = train_one_epoch(trainee, batches, epoch, position.step, step_count, position.steps_done, must_stop)
    for number, (figures, stop) in enumerate(outcomes, start=1):
        step, steps_done = position.step + number, position.steps_done + number
        images = min(trainee.together, len(plan) - (step - 1) * trainee.together)
        done = Position(epoch, step, steps_done) if step < step_count else Position(epoch + 1, 0, steps_done)
        yield Progress(done, step_count, images, figures), stop


def _measure(
    trainee: Trainee,
    position: Position,
    machines: tuple[int, ...],
    steps_in_epoch: int,
    measure: Callable[[nn.Module], dict[str, float]],
    checkpointer: Checkpointer,
) -> None:
    """Measure the model after an epoch; a rank that is asked to stop ends in a checkpoint here, too."""

    def save(figures: dict[str, float], *, is_measured: bool) -> None:
        copied = partial(copy_state, trainee, position, machines, is_measured=is_measured)
        checkpointer.save(copied, Progress(position, steps_in_epoch, 0, figures))

    is_first = trainee.ranks.is_first
    try:
        figures = measure(trainee.average.model)
    except Interrupted:
        if is_first:
            save({}, is_measured=False)
        raise
    if figures:
        outcome = Progress(position, steps_in_epoch, 0, figures)
        checkpointer.check(outcome)
        if is_first and checkpointer.is_due(outcome):
            save(figures, is_measured=True)


def _build_model(
    config: TrainingConfig, card: ModelCard, initialise: Callable[[nn.Module], None], ranks: Ranks
) -> nn.Module:
    """Return the model before the first step. Raises `SyncBatchNormUnavailable`."""
    if config.sync_batch_norm and ranks.world > 1 and ranks.device.type != "cuda":
        raise SyncBatchNormUnavailable
    torch.manual_seed(config.seed)
    model = build(card)
    initialise(model)
    body = family_of(card.architecture).body(model)
    if config.train_batch_norm:
        thaw_batch_norm(body)
    freeze(body, config.frozen_stages)
    if config.sync_batch_norm and ranks.world > 1:
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    return model


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


def copy_state(
    trainee: Trainee, position: Position, machines: tuple[int, ...], *, is_measured: bool
) -> Callable[[], bytes]:
    """Copy the state to memory; see `Snapshot`."""
    place = asdict(position) | {"together": trainee.together, "machines": list(machines), "measured": is_measured}
    state = {"position": place, **tree_map(_copy_tensor, trainee.state_dict())}

    def encode() -> bytes:
        buffer = io.BytesIO()
        torch.save(state, buffer)
        return buffer.getvalue()

    return encode


def _copy_tensor(value: Any) -> Any:
    return value.detach().to("cpu", copy=True) if isinstance(value, torch.Tensor) else value


def _resume(trainee: Trainee, checkpoint: bytes | None) -> tuple[Position, bool, tuple[int, ...]]:
    """Restore a checkpoint.

    Returns the position, whether the epoch that ends there has been measured, and `Ranks.machines` of its epoch. With
    another number of ranks, training continues at the step that starts there or just before.
    """
    if checkpoint is None:
        return Position(), True, trainee.ranks.machines
    state = torch.load(io.BytesIO(checkpoint), map_location=trainee.ranks.device, weights_only=True)
    trainee.load_state_dict(state)
    place = state["position"]
    step = resumed_step(place["step"], place["together"], trainee.together)
    position = Position(place["epoch"], step, place["steps_done"])
    return position, place.get("measured", True), tuple(place.get("machines", (0,)))


def _loader_workers(config: TrainingConfig, ranks: Ranks) -> int:
    if config.loader_workers is not None:
        return config.loader_workers
    return max(1, min(8, (os.cpu_count() or 1) // ranks.world - 1))
