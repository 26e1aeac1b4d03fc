"""False positives in normal images, in which no reader found anything."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trainer.evaluation.flat import Flat

#: Minimum scores at which detections are counted.
THRESHOLDS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)


@dataclass(frozen=True)
class NormalRate:
    """Detections in normal images with at least this score."""

    threshold: float
    #: Per normal image.
    false_positives: float
    #: Share of the normal images with at least one.
    films_marked: float


def count_on_normals(flat: Flat, thresholds: Sequence[float] = THRESHOLDS) -> list[NormalRate]:
    """Count detections in images without a true box of any class. Returns an empty list if there is no such image."""
    image_count = int(np.count_nonzero(~flat.abnormal))
    if not image_count:
        return []
    on_normals = ~flat.abnormal[flat.image_of]
    rates = []
    for threshold in thresholds:
        images = flat.image_of[on_normals & (flat.scores >= threshold)]
        rates.append(NormalRate(threshold, len(images) / image_count, len(np.unique(images)) / image_count))
    return rates
