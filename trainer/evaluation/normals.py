"""False positives on normal films: what a detector marks where no reader found anything."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trainer.evaluation.flat import Flat

#: Scores from which detections are counted.
THRESHOLDS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)


@dataclass(frozen=True)
class NormalRate:
    """Detections on normal films at or above one score."""

    threshold: float
    #: Per normal film.
    false_positives: float
    #: Share of the normal films with at least one.
    films_marked: float


def count_on_normals(flat: Flat, thresholds: Sequence[float] = THRESHOLDS) -> list[NormalRate]:
    """Count detections on films without a true box of any class; empty where there is no such film."""
    films = int(np.count_nonzero(~flat.abnormal))
    if not films:
        return []
    on_normals = ~flat.abnormal[flat.image_of]
    rates = []
    for threshold in thresholds:
        images = flat.image_of[on_normals & (flat.scores >= threshold)]
        rates.append(NormalRate(threshold, len(images) / films, len(np.unique(images)) / films))
    return rates
