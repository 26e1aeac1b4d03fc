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
from trainer.datasets.dataset import Dataset, DatasetImage
from trainer.evaluate import find, to_material
from trainer.evaluation.boxes import Boxes
from trainer.evaluation.voc import evaluate_voc
from trainer.ranks import Ranks
from trainer.rendition_reader import RenditionReader
from trainer.task import Interrupted

#: Returns the figures of a model, the same on all ranks; all ranks call it together.
Measure = Callable[[nn.Module], dict[str, float]]

Precision = Literal["auto", "fp32", "bf16"]

_MAX_IMAGES = 64
#: A forward pass takes about a third of a step: one image per four of an epoch adds less than a tenth to its time.
_IMAGES_OF_AN_EPOCH = 4
_BATCH_SIZE = 8


def measure_on(
    config: TrainingConfig,
    dataset: Dataset,
    card: ModelCard,
    read: RenditionReader,
    ranks: Ranks,
    precision: Precision,
    must_stop: Callable[[], bool] = lambda: False,
) -> Measure:
    """Return a function that measures a model on the dataset's evaluated split; `card` names the classes.

    The function raises `Interrupted` on all ranks after a pass in which `must_stop` was true on one of them.
    """
    if config.evaluate_split is None:
        return lambda _: {}
    epoch = config.images_per_epoch or len(dataset.of("train").images)
    images = choose(dataset.of(config.evaluate_split).images, min(_MAX_IMAGES, -(-epoch // _IMAGES_OF_AN_EPOCH)))

    def measure(model: nn.Module) -> dict[str, float]:
        weights = encode_weights(model.state_dict(), torch.float32)
        described = card.model_copy(update={"weights_sha256": hashlib.sha256(weights).hexdigest()})
        try:
            detector = Detector(described, weights, str(ranks.device), precision)
        except (DetectionFailed, DeviceOutOfMemory):
            detector = None  # the other ranks wait in the exchange
        together = _BATCH_SIZE * ranks.world
        found: dict[int, Boxes] = {}
        for passed in (images[start : start + together] for start in range(0, len(images), together)):
            mine = _find(detector, passed[ranks.rank :: ranks.world], read)
            parts, stops = zip(*ranks.gather((mine, must_stop())), strict=True)
            if any(stops):
                raise Interrupted
            found |= {image_id: boxes for part in parts for image_id, boxes in part.items()}
        mean_ap = evaluate_voc(to_material(dataset, images, found)).mean_ap if len(found) == len(images) else None
        return {} if mean_ap is None else {AP40: mean_ap}

    return measure


def _find(detector: Detector | None, images: Sequence[DatasetImage], read: RenditionReader) -> dict[int, Boxes]:
    """Return the detections of the images; none if the detector fails, because the other ranks wait."""
    if detector is None:
        return {}
    try:
        return find(detector, images, read, _BATCH_SIZE)
    except (DetectionFailed, DeviceOutOfMemory):
        return {}


def choose(images: Sequence[DatasetImage], most: int) -> tuple[DatasetImage, ...]:
    """Choose images evenly over the list; the same ones each time."""
    count = min(most, len(images))
    return tuple(images[number * len(images) // count] for number in range(count))
