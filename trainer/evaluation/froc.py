"""Free-response ROC: the share of lesions found as a function of the false positives per image."""

from dataclasses import dataclass

import numpy as np

from trainer.evaluation.flat import Flat, Ints, Reals
from trainer.evaluation.matching import NONE

#: False positives per image at which sensitivity is read, as in the LUNA16 challenge.
RATES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)


@dataclass(frozen=True)
class Froc:
    """A curve with one point per distinct score, as threshold, from the highest score to the lowest.

    False positives are counted over all evaluated images, with and without findings. A second detection of the same
    true box is also a false positive.
    """

    thresholds: Reals  # [k], falling
    #: False positives per image.
    false_positives: Reals  # [k], rising
    #: Share of the true boxes that are found (lesion level).
    lesion_sensitivity: Reals  # [k]
    #: Share of the images with a true box in which at least one is found (image level).
    image_sensitivity: Reals  # [k]

    def lesions_at(self, rates: tuple[float, ...] = RATES) -> list[float]:
        """Return the lesion sensitivity for each rate, at the lowest threshold that does not exceed this rate.

        Values are not interpolated: each one belongs to a threshold that can be set.
        """
        return self._read(self.lesion_sensitivity, rates)

    def images_at(self, rates: tuple[float, ...] = RATES) -> list[float]:
        """Return the image sensitivity for each rate, at the lowest threshold that does not exceed this rate."""
        return self._read(self.image_sensitivity, rates)

    def threshold_at(self, rate: float) -> float | None:
        """Return the lowest threshold that does not exceed a rate; None if even the highest score exceeds it."""
        kept = int(np.searchsorted(self.false_positives, rate, side="right"))
        return float(self.thresholds[kept - 1]) if kept else None

    def _read(self, sensitivity: Reals, rates: tuple[float, ...]) -> list[float]:
        kept = np.searchsorted(self.false_positives, rates, side="right")
        values: list[float] = np.concatenate(([0.0], sensitivity))[kept].tolist()
        return values


def trace_froc(flat: Flat, claims: Ints) -> Froc | None:
    """Return the curve; None without true boxes. `claims` [n] is the true box that each detection found."""
    lesions, images = len(flat.true_image_of), len(np.unique(flat.true_image_of))
    if not lesions:
        return None
    ends = ends_of_ties(flat.scores)
    right = claims != NONE
    return Froc(
        flat.scores[ends],
        np.cumsum(~right)[ends] / flat.images,
        np.cumsum(right)[ends] / lesions,
        np.cumsum(_first_on_image(flat, np.flatnonzero(right)))[ends] / images,
    )


def _first_on_image(flat: Flat, hits: Ints) -> Ints:
    """Return [n] with 1 for the first detection of each image among `hits`, else 0."""
    marks = np.zeros(len(flat.scores), np.int64)
    marks[first_hits(flat, hits)] = 1
    return marks


def first_hits(flat: Flat, hits: Ints) -> Ints:
    """Return the first of the detections `hits` of each image, in rising order."""
    return np.sort(hits[np.unique(flat.image_of[hits], return_index=True)[1]])


def ends_of_ties(scores: Reals) -> Ints:
    """Return the index of the last element of each run of equal scores: [k]."""
    return np.flatnonzero(np.diff(scores, append=-np.inf))
