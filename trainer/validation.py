"""Average precision of a model during training, on a few images that are not used for training.

Only for the curve. The sample is small, so that it costs little compared with an epoch. The evaluation of the finished
model is the authoritative result.
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import nn

from shared.detector.card import ModelCard
from shared.detector.runtime import Detector
from shared.detector.weights import encode_weights
from shared.errors import DetectionFailed, DeviceOutOfMemory
from shared.training.config import TrainingConfig
from trainer.curve import AP40
from trainer.datasets.dataset import Dataset, Film
from trainer.evaluate import find, to_material
from trainer.evaluation.voc import evaluate_voc
from trainer.films import FilmReader
from trainer.ranks import Ranks

#: Returns the figures of a model, the same on all ranks; all ranks call it together.
Measure = Callable[[nn.Module], dict[str, float]]

Precision = Literal["auto", "fp32", "bf16"]

_MAX_FILMS = 64
#: A forward pass takes about a third of a step: one image per four of an epoch adds less than a tenth to its time.
_FILMS_OF_AN_EPOCH = 4
_BATCH_SIZE = 8


def measure_on(
    config: TrainingConfig, dataset: Dataset, card: ModelCard, read: FilmReader, ranks: Ranks, precision: Precision
) -> Measure:
    """Return a function that measures a model on the dataset's evaluated split; `card` names the classes."""
    if config.evaluate_split is None:
        return lambda _: {}
    epoch = config.images_per_epoch or len(dataset.of("train").films)
    films = choose(dataset.of(config.evaluate_split).films, min(_MAX_FILMS, -(-epoch // _FILMS_OF_AN_EPOCH)))

    def measure(model: nn.Module) -> dict[str, float]:
        weights = encode_weights(model.state_dict(), torch.float32)
        described = card.model_copy(update={"weights_sha256": hashlib.sha256(weights).hexdigest()})
        try:
            detector = Detector(described, weights, str(ranks.device), precision)
            mine = find(detector, films[ranks.rank :: ranks.world], read, _BATCH_SIZE)
        except (DetectionFailed, DeviceOutOfMemory):
            mine = None  # the other ranks wait in the exchange
        parts = ranks.gather(mine)
        found = {image_id: boxes for part in parts if part is not None for image_id, boxes in part.items()}
        mean_ap = evaluate_voc(to_material(dataset, films, found)).mean_ap if len(found) == len(films) else None
        return {} if mean_ap is None else {AP40: mean_ap}

    return measure


def choose(films: Sequence[Film], most: int) -> tuple[Film, ...]:
    """Choose images evenly over the list; the same ones each time."""
    count = min(most, len(films))
    return tuple(films[number * len(films) // count] for number in range(count))
