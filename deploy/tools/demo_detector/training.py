"""Trains the detector with the trainer's own code, from the weights of an earlier one."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from deploy.tools.demo_detector.material import reader
from shared.detector.card import ModelCard
from shared.detector.runtime import Detector
from shared.detector.weights import decode_weights, encode_weights
from shared.training.config import Augmentation, TrainingConfig
from trainer import initial_weights
from trainer.datasets.dataset import Dataset
from trainer.fit import Checkpointer, Progress, Snapshot, draft_card, fit
from trainer.ranks import Ranks

CONFIG = TrainingConfig(
    architecture="carina_small",
    initial_weights="none",
    frozen_stages=5,
    images_per_epoch=400,
    epochs=8,
    batch_size=8,
    optimizer="adamw",
    learning_rate=5e-4,
    weight_decay=0.02,
    warmup_steps=50,
    ema_decay=0.99,
    augmentation=Augmentation(
        rotate_deg=5,
        translate=0.06,
        scale=(0.84, 1.12),
        aspect=(0.92, 1.09),
        gamma=(0.7, 1.4),
        contrast=(0.75, 1.25),
        brightness=(-0.1, 0.1),
        noise=0.02,
    ),
    score_threshold=0.3,
    evaluate_split=None,
    loader_workers=1,
)

#: What the card says about the training images, and about what the model cannot do.
TRAINED_ON = (
    "phantoms, and {} normal films of NIH ChestX-ray14 (Wang et al., CVPR 2017) as they are and with drawn lesions"
    " blended into them; markers, text, lines and devices drawn on both"
)
WARNINGS = (
    "Made for a demonstration: it has learned drawn lesions only, and misses most real findings.",
    "An image without a box is not a normal image.",
    "It learned to be quiet on normal frontal films of one hospital; a box on a real film is not evidence of disease.",
)


class Checkpoint(Checkpointer):
    """Keeps the last state of the training in a file, so that an interrupted training continues."""

    def __init__(self, file: Path, report: Callable[[Progress], None]) -> None:
        self._file = file
        self._report = report

    def load(self) -> bytes | None:
        """Return the state, if there is one."""
        return self._file.read_bytes() if self._file.exists() else None

    def must_stop(self) -> bool:
        """Never."""
        return False

    def check(self, progress: Progress) -> None:
        """Report the progress."""
        self._report(progress)

    def is_due(self, progress: Progress) -> bool:
        """After each epoch."""
        return progress.position.step == 0

    def save(self, snapshot: Snapshot, progress: Progress) -> None:
        """Replace the file."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self._file.with_suffix(".tmp")
        unfinished.write_bytes(snapshot()())
        unfinished.replace(self._file)


def train(
    dataset: Dataset,
    folder: Path,
    base: tuple[ModelCard, bytes],
    config: TrainingConfig,
    figures: Callable[[Detector], dict[str, float]],
    report: Callable[[Progress], None],
) -> tuple[ModelCard, bytes]:
    """Train on a drawn dataset, whose images are in `folder`. Returns a card, and weights in half precision.

    After each epoch, `figures` gets the detector so far, and `report` its figures.
    """
    base_card, base_weights = base
    drafted = draft_card(config, dataset, base_card.name, base_card)

    def initialise(model: nn.Module) -> None:
        initial_weights.fill(model, decode_weights(base_weights), drafted, base_card)

    def measure(model: nn.Module) -> dict[str, float]:
        return figures(Detector(*seal(drafted, model.state_dict())))

    checkpoint = Checkpoint(folder / "checkpoint.pt", report)
    alone = Ranks(0, 1, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    card, weights = fit(config, dataset, drafted, initialise, reader(folder), alone, checkpoint, measure)
    return seal(card, decode_weights(weights))


def seal(card: ModelCard, state: Mapping[str, Tensor]) -> tuple[ModelCard, bytes]:
    """Return a model's card and weights in half precision."""
    weights = encode_weights(state)
    return card.model_copy(update={"weights_sha256": hashlib.sha256(weights).hexdigest()}), weights
