"""Kaggle's VinBigData metric: mean average precision as VOC 2010 defines it, at an overlap above 0.4."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shared.detector.card import Category
from trainer.evaluation.boxes import Boxes
from trainer.evaluation.flat import Flat, Ints, Reals
from trainer.evaluation.matching import IOU_ABOVE, NONE, match_voc
from trainer.evaluation.material import EvaluationSet


@dataclass(frozen=True)
class Evaluation:
    """How well the detections of some images agree with the truth."""

    #: None where the class has no true box in the evaluated images; such a class is left out of the mean.
    ap_by_category: dict[int, float | None]
    images: int

    @property
    def mean_ap(self) -> float | None:
        """Mean over the classes that occur; None where none does."""
        return mean_of_present(list(self.ap_by_category.values()))

    @property
    def absent(self) -> list[int]:
        """Return the classes without a true box."""
        return [category_id for category_id, ap in self.ap_by_category.items() if ap is None]


@dataclass(frozen=True)
class PrecisionRecall:
    """One class's precision and recall as the score threshold falls: [n], a point for each of its detections."""

    recall: Reals
    precision: Reals

    @property
    def area(self) -> float:
        """The exact area under precision made to fall monotonically, as VOC 2010 computes it."""
        envelope = np.maximum.accumulate(self.precision[::-1])[::-1]
        return float(np.sum(np.diff(self.recall, prepend=0.0) * envelope))


def evaluate_boxes(
    image_ids: Sequence[int],
    truth: Mapping[int, Boxes],
    found: Mapping[int, Boxes],
    category_ids: Sequence[int],
    iou_above: float = IOU_ABOVE,
) -> Evaluation:
    """Compute each class's average precision over the named images alone; an image without an entry has no boxes."""
    categories = tuple(Category(id=category_id, name=str(category_id)) for category_id in category_ids)
    patients = tuple(map(str, image_ids))
    return evaluate_voc(EvaluationSet(tuple(image_ids), patients, categories, truth, found), iou_above)


def evaluate_voc(material: EvaluationSet, iou_above: float = IOU_ABOVE) -> Evaluation:
    """Compute each class's average precision; see `match_voc` for which detections are right."""
    flat = material.flat
    right = match_voc(flat, iou_above) != NONE
    curves = [trace_precision_recall(flat, right, number) for number in range(flat.classes)]
    aps = {
        category.id: curve.area if curve else None for category, curve in zip(material.categories, curves, strict=True)
    }
    return Evaluation(aps, flat.images)


def trace_precision_recall(flat: Flat, right: NDArray[np.bool_], category: int) -> PrecisionRecall | None:
    """Follow a class's precision and recall; `right` [n] marks true detections. None where it has no true box."""
    positives = np.count_nonzero(flat.true_class_of == category)
    if not positives:
        return None
    hits = np.cumsum(right[flat.class_of == category])
    return PrecisionRecall(hits / positives, hits / np.arange(1, len(hits) + 1))


def no_finding_ap(material: EvaluationSet) -> float | None:
    """Average precision of the challenge's 15th class, "No finding"; None unless images of both kinds are there.

    Of normal images alone it would be 1, whatever a model marks on them.

    The challenge gives an image without boxes the box 0 0 1 1 of class 14, and asks for it with a confidence. Carina
    has no such output: the confidence is 1 less the image's highest score, so every image has one such detection, and
    it is right where the image has no true box.
    """
    flat = material.flat
    normal = ~flat.abnormal
    if normal.all() or not normal.any():
        return None
    confidences = 1 - highest_scores(flat)
    hits = np.cumsum(normal[np.argsort(-confidences, kind="stable")])
    return PrecisionRecall(hits / normal.sum(), hits / np.arange(1, len(hits) + 1)).area


def highest_scores(flat: Flat, chosen: NDArray[np.bool_] | None = None) -> Reals:
    """Return each image's highest score, [images], of the `chosen` detections [n] if given; 0 where there is none."""
    image_of: Ints = flat.image_of if chosen is None else flat.image_of[chosen]
    scores = np.zeros(flat.images)
    np.maximum.at(scores, image_of, flat.scores if chosen is None else flat.scores[chosen])
    return scores


def mean_of_present(values: Sequence[float | None]) -> float | None:
    """Mean of what is there; None where nothing is."""
    present = [value for value in values if value is not None]
    return float(np.mean(present)) if present else None
