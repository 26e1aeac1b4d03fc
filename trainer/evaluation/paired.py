"""Compares a candidate with the active model on the same images, resample by resample."""

from dataclasses import dataclass

import numpy as np

from trainer.evaluation.bootstrap import CONFIDENCE, draw_weights, interval
from trainer.evaluation.flat import Flat, Reals
from trainer.evaluation.matching import NONE, match_voc
from trainer.evaluation.material import EvaluationSet
from trainer.evaluation.voc import evaluate_voc, mean_of_present, no_finding_ap
from trainer.evaluation.weighted import WeightedNoFinding, mean_over_classes, rank


@dataclass(frozen=True)
class CategoryGain:
    """The average precision of one class under both models; None without a true box."""

    category_id: int
    name: str
    #: True boxes of the class.
    boxes: int
    active_ap: float | None
    candidate_ap: float | None

    @property
    def gain(self) -> float | None:
        """The candidate's average precision minus that of the active model; None without a true box."""
        if self.active_ap is None or self.candidate_ap is None:
            return None
        return self.candidate_ap - self.active_ap


@dataclass(frozen=True)
class PairedGain:
    """The difference between the mean average precisions of two models, VOC 2010 at IoU > 0.4.

    `with_no_finding` says whether "No finding" counts as one more class.
    """

    active_map: float
    candidate_map: float
    #: Both ends of the interval of `gain`, with the given confidence.
    low: float
    high: float
    confidence: float
    #: Number of resamples with a true box.
    samples: int
    categories: tuple[CategoryGain, ...]
    with_no_finding: bool = False

    @property
    def gain(self) -> float:
        """The candidate's mean average precision minus that of the active model."""
        return self.candidate_map - self.active_map

    def drops(self, more_than: float, counted_from_boxes: int) -> tuple[CategoryGain, ...]:
        """Return the classes with enough true boxes whose average precision fell by more than the limit."""
        return tuple(
            category
            for category in self.categories
            if category.boxes >= counted_from_boxes and category.gain is not None and -category.gain > more_than
        )


def paired_gain(
    active: EvaluationSet,
    candidate: EvaluationSet,
    *,
    samples: int,
    seed: int,
    confidence: float = CONFIDENCE,
    with_no_finding: bool = False,
) -> PairedGain:
    """Compare two models by a paired bootstrap over patients: both use the same resamples.

    With `with_no_finding`, "No finding" counts as one more class.

    Raises `ValueError` if the models are not evaluated on the same images, patients, classes and true boxes, or if
    there is no true box or no resample.
    """
    if samples < 1:
        raise ValueError("a comparison needs resamples")
    _require_same_truth(active, candidate)
    before, after = evaluate_voc(active), evaluate_voc(candidate)
    maps = [
        mean_of_present([*voc.ap_by_category.values(), *([no_finding_ap(material)] if with_no_finding else [])])
        for voc, material in ((before, active), (after, candidate))
    ]
    if before.mean_ap is None or maps[0] is None or maps[1] is None:
        raise ValueError("there is no true box to compare on")
    old, new = (_Mean(material.flat, with_no_finding=with_no_finding) for material in (active, candidate))
    gains = [new(weights) - old(weights) for weights in draw_weights(active.groups, samples, seed, rows=16)]
    bounds = interval(np.concatenate(gains), confidence)
    if bounds is None:
        raise ValueError("no resample holds a true box; draw more")
    counts = np.bincount(active.flat.true_class_of, minlength=active.flat.classes).tolist()
    aps = (before.ap_by_category, after.ap_by_category)
    categories = tuple(
        CategoryGain(category.id, category.name, count, *(ap[category.id] for ap in aps))
        for category, count in zip(active.categories, counts, strict=True)
    )
    return PairedGain(
        maps[0], maps[1], bounds.low, bounds.high, confidence, bounds.samples, categories, with_no_finding
    )


class _Mean:
    """The mean average precision of one model in many resamples."""

    def __init__(self, flat: Flat, *, with_no_finding: bool) -> None:
        self._rankings = rank(flat, (match_voc(flat) != NONE)[None])
        self._no_finding = WeightedNoFinding(flat) if with_no_finding else None

    def __call__(self, weights: Reals) -> Reals:
        values = [ranking.voc(weights) for ranking in self._rankings]
        return mean_over_classes(values if self._no_finding is None else [*values, self._no_finding(weights)])


def _require_same_truth(active: EvaluationSet, candidate: EvaluationSet) -> None:
    one, other = active.flat, candidate.flat
    if not (
        active.ordered_ids == candidate.ordered_ids
        and active.categories == candidate.categories
        and np.array_equal(active.groups, candidate.groups)
        and np.array_equal(one.true_image_of, other.true_image_of)
        and np.array_equal(one.true_class_of, other.true_class_of)
        and np.array_equal(one.true_boxes_xyxy, other.true_boxes_xyxy)
    ):
        raise ValueError("the models are not evaluated on the same images, patients, classes and true boxes")
