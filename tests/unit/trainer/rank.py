"""What torchrun starts on each rank for `test_fit`: FOLDER IMAGES."""

import json
import sys
from pathlib import Path

from shared.training.config import TrainingConfig
from tests.tiny_images import card_of, read, tiny_dataset
from trainer.fit import Progress, fit
from trainer.ranks import joined

folder, images = Path(sys.argv[1]), int(sys.argv[2])
losses: list[float] = []


class Listener:
    """Remembers the losses and keeps nothing."""

    def load(self) -> None:
        """Begin at the beginning."""

    def is_due(self, progress: Progress) -> bool:
        """Never."""
        return False

    def save(self, checkpoint: bytes, progress: Progress) -> None:
        """Keep nothing."""

    def check(self, progress: Progress) -> None:
        """Remember the loss."""
        losses.append(progress.figures["loss"])


config = TrainingConfig.model_validate_json((folder / "config.json").read_text())
dataset = tiny_dataset(images)
with joined("cpu") as ranks:
    _, weights = fit(config, dataset, card_of(config, dataset), lambda model: None, read, ranks, Listener())
    if ranks.is_first:
        (folder / "losses.json").write_text(json.dumps(losses))
        (folder / "weights").write_bytes(weights)
