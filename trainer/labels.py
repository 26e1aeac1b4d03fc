"""How much the boxes of several readers count in training."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from shared.errors import PermanentError
from shared.training.config import Labels
from trainer.datasets.dataset import DatasetImage


class NoReaders(PermanentError):
    """The training images do not state what the config's `labels` need. Import them again, or change `labels`."""

    code = "no_readers"


def confidences(image: DatasetImage, labels: Labels) -> NDArray[np.float32]:
    """Return the confidence of each box, float32 [n] in 0–1; 0: a region to ignore. Without readers it is 1."""
    full = np.ones(len(image.category_ids), np.float32)
    if not image.box_readers or not labels.need_readers:
        return full
    weights = [[_weight(labels, reader) for reader in drew] for drew in image.box_readers]
    confidence = np.array([min(1.0, max(own)) for own in weights])
    if labels.confidence == "agreement":
        everyone = sum(_weight(labels, reader) for reader in image.readers)
        confidence = np.array([sum(own) / everyone if everyone else 0.0 for own in weights])
    elif labels.confidence == "probability" and image.probabilities is not None:
        confidence *= np.where(np.isnan(image.probabilities), 1.0, image.probabilities)
    if labels.ignore_lone and sum(_weight(labels, reader) > 0 for reader in image.readers) > 1:
        confidence[[sum(weight > 0 for weight in own) < 2 for own in weights]] = 0
    return confidence.astype(np.float32)


def require_readers(images: Sequence[DatasetImage], labels: Labels) -> None:
    """Raise `NoReaders` if no image states the readers or probabilities that `labels` needs."""
    if labels.need_readers and not any(image.box_readers for image in images):
        raise NoReaders("The config's labels need the readers of each box, and the training images have none.")
    known = {reader for image in images for reader in image.readers}
    if unknown := sorted(set(labels.reader_weights) - known):
        raise NoReaders(f"labels.reader_weights names readers of no training image: {', '.join(unknown)}.")
    if labels.confidence == "probability" and all(image.probabilities is None for image in images):
        raise NoReaders(
            "No box has a probability of being a true finding. It needs a consensus of images with three readers or "
            "more: import the table again, or set labels.confidence to agreement."
        )


def _weight(labels: Labels, reader: str) -> float:
    return labels.reader_weights.get(reader, 1.0)
