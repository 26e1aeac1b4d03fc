"""Calibration of scores: if the score is 0.7, are seven of ten such boxes correct?"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.evaluation.flat import Reals

BINS = 10


@dataclass(frozen=True)
class Bin:
    """Detections with a score in (low, high]; the first bin also contains 0."""

    low: float
    high: float
    detections: int
    #: None if the bin is empty.
    mean_score: float | None
    precision: float | None


@dataclass(frozen=True)
class Calibration:
    """Scores compared with the share of correct detections (arXiv:1706.04599, section 2)."""

    bins: tuple[Bin, ...]
    #: Expected calibration error: mean distance between score and precision over bins, weighted by number of
    #: detections.
    ece: float | None


def calibrate(scores: Reals, right: NDArray[np.bool_], bins: int = BINS) -> Calibration:
    """Compare scores [n] in 0–1 with the correctness `right` [n] of the detections, in bins of equal width."""
    edges = np.linspace(0, 1, bins + 1)
    number = np.clip(np.searchsorted(edges, scores, side="left") - 1, 0, bins - 1)
    counts = np.bincount(number, minlength=bins)
    score_sums = np.bincount(number, scores, minlength=bins)
    hits = np.bincount(number, right, minlength=bins)
    described = tuple(
        Bin(float(low), float(high), int(n), total / n if n else None, hit / n if n else None)
        for low, high, n, total, hit in zip(
            edges[:-1], edges[1:], counts.tolist(), score_sums.tolist(), hits.tolist(), strict=True
        )
    )
    ece = float(np.abs(score_sums - hits).sum() / len(scores)) if len(scores) else None
    return Calibration(described, ece)
