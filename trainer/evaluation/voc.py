"""Kaggle's VinBigData metric: mean average precision of VOC 2010, at an intersection over union above 0.4."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.evaluation.flat import Flat, Reals
from trainer.evaluation.matching import NONE, match_voc
from trainer.evaluation.material import EvaluationSet


@dataclass(frozen=True)
class Evaluation:
    """How well the detections of a set of images match the true boxes."""

    #: None if the class has no true box in the evaluated images; such a class is excluded from the mean.
    ap_by_category: dict[int, float | None]
    images: int

    @property
    def mean_ap(self) -> float | None:
        """Return the mean over the classes with true boxes; None if there are none."""
        return mean_of_present(list(self.ap_by_category.values()))


@dataclass(frozen=True)
class PrecisionRecall:
    """Precision and recall of one class with falling score threshold: [n], one point per detection."""

    recall: Reals
    precision: Reals

    @property
    def area(self) -> float:
        """Return the exact area under the monotonic precision, as in VOC 2010."""
        envelope = np.maximum.accumulate(self.precision[::-1])[::-1]
        return float(np.sum(np.diff(self.recall, prepend=0.0) * envelope))


def evaluate_voc(material: EvaluationSet) -> Evaluation:
    """Compute the average precision of each class; `match_voc` defines which detections are correct."""
    flat = material.flat
    right = match_voc(flat) != NONE
    curves = [trace_precision_recall(flat, right, number) for number in range(flat.classes)]
    aps = {
        category.id: curve.area if curve else None for category, curve in zip(material.categories, curves, strict=True)
    }
    return Evaluation(aps, flat.images)


def trace_precision_recall(flat: Flat, right: NDArray[np.bool_], category: int) -> PrecisionRecall | None:
    """Return the precision and recall of a class; None if it has no true box. `right` [n] marks correct detections."""
    positives = np.count_nonzero(flat.true_class_of == category)
    if not positives:
        return None
    hits = np.cumsum(right[flat.class_of == category])
    return PrecisionRecall(hits / positives, hits / np.arange(1, len(hits) + 1))


def no_finding_ap(material: EvaluationSet) -> float | None:
    """Average precision of the challenge's 15th class, "No finding"; None unless there are normal and abnormal images.

    With normal images alone it would always be 1.

    The challenge gives an image without boxes the box 0 0 1 1 of class 14, and expects a detection of it with a
    confidence. Here each image has one such detection, with 1 minus the image's score (`Flat.image_scores`) as its
    confidence; it is correct if the image has no true box.
    """
    flat = material.flat
    normal = ~flat.abnormal
    if normal.all() or not normal.any():
        return None
    confidences = 1 - flat.image_scores
    hits = np.cumsum(normal[np.argsort(-confidences, kind="stable")])
    return PrecisionRecall(hits / normal.sum(), hits / np.arange(1, len(hits) + 1)).area


def mean_of_present(values: Sequence[float | None]) -> float | None:
    """Return the mean of the values that are not None; None if there are none."""
    present = [value for value in values if value is not None]
    return float(np.mean(present)) if present else None
