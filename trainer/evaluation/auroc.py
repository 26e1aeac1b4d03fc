"""Area under the ROC curve of whole images: do images with a finding score higher than images without one?"""

import numpy as np
from numpy.typing import NDArray

from trainer.evaluation.flat import Flat, Reals, highest_scores
from trainer.evaluation.froc import ends_of_ties


def any_finding_auroc(flat: Flat) -> float | None:
    """AUROC of images with any true box against images without one, by `Flat.image_scores`."""
    return auroc(flat.image_scores, flat.abnormal)


def category_auroc(flat: Flat, category: int) -> float | None:
    """AUROC of images with a true box of a class against all others, by an image's highest score for the class."""
    return auroc(highest_scores(flat, flat.class_of == category), flat.boxes_by_image(category) > 0)


def auroc(scores: Reals, positive: NDArray[np.bool_]) -> float | None:
    """Probability that a positive scores higher than a negative; a tie counts half (Mann and Whitney's U).

    `scores` and `positive` are [n]. None unless both positives and negatives exist.
    """
    positives = int(positive.sum())
    negatives = len(positive) - positives
    if not positives or not negatives:
        return None
    order = np.argsort(-scores, kind="stable")
    ends = ends_of_ties(scores[order])
    hits, alarms = (np.diff(np.cumsum(labels[order])[ends], prepend=0) for labels in (positive, ~positive))
    below = negatives - np.cumsum(alarms)
    return float(np.sum(hits * (below + alarms / 2)) / (positives * negatives))
