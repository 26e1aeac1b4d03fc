"""Metrics of many resamples at once: detections are matched once, then only the weights of their images change.

If a resample contains image i w[i] times, the value equals the plain metric on w[i] copies of the image, because
detections are matched only to true boxes of their own image. (The order of equal scores within an image can differ:
here, the copies of a detection stay together; in the plain metric, those of several detections alternate.)

`weights` is float64 [r, images], one row per resample; values are [r], NaN where the metric is undefined.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.evaluation.flat import Flat, Ints, Reals
from trainer.evaluation.froc import RATES, ends_of_ties, first_hits
from trainer.evaluation.matching import NONE, within_limit

_RECALLS = np.linspace(0, 1, 101)


@dataclass(frozen=True)
class Ranking:
    """The detections of one class by falling score, and which of them are correct at each of several IoU limits."""

    image_of: Ints  # [n]
    hits: Sequence[Ints]  # for each IoU limit, the indices of the correct ones
    boxes_by_image: Ints  # [images], number of true boxes

    def voc(self, weights: Reals) -> Reals:
        """Return the average precision with the exact area, at the first IoU limit: [r]."""
        return next(iter(self._areas(weights, exact=True)))

    def coco(self, weights: Reals) -> Reals:
        """Return the average precision at COCO's 101 recalls, for each IoU limit: [limits, r]."""
        return np.stack(list(self._areas(weights, exact=False)))

    def _areas(self, weights: Reals, *, exact: bool) -> list[Reals]:
        positives = weights @ self.boxes_by_image
        # Only correct detections add to the area. For the others, only the number before each correct one matters.
        places = np.unique(np.concatenate(self.hits))
        seen = np.cumsum(weights[:, self.image_of], axis=1)[:, places]
        areas = []
        for hits in self.hits:
            own = weights[:, self.image_of[hits]]
            found, detections = np.cumsum(own, axis=1), seen[:, np.searchsorted(places, hits)]
            precision = np.divide(found, detections, out=np.zeros_like(found), where=detections > 0)
            envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
            shares = own if exact else _count_recalls(found, positives)
            area = (envelope * shares).sum(axis=1)
            areas.append(_divide(area, positives) if exact else np.where(positives > 0, area / len(_RECALLS), np.nan))
        return areas


def rank(flat: Flat, right: NDArray[np.bool_], *, limited: bool = False) -> list[Ranking]:
    """Rank the detections of each class; `right` [limits, n] marks correct ones. `limited`: only COCO's best 100."""
    kept = within_limit(flat) if limited else np.ones(len(flat.scores), bool)
    rankings = []
    for number in range(flat.classes):
        mine = np.flatnonzero(kept & (flat.class_of == number))
        hits = [np.flatnonzero(row[mine]) for row in right]
        rankings.append(Ranking(flat.image_of[mine], hits, flat.boxes_by_image(number)))
    return rankings


def _count_recalls(found: Reals, positives: Reals) -> Reals:
    """Return how many of COCO's recalls each correct detection is the first to reach: [r, hits]."""
    recall = _divide(found, positives[:, None])
    reached = np.searchsorted(_RECALLS, recall, side="right").astype(np.float64)
    return np.diff(reached, axis=1, prepend=0)


def mean_over_classes(values: Sequence[Reals]) -> Reals:
    """Return the mean of the classes' values, each [r], over the classes with true boxes in a resample: [r]."""
    table = np.stack(values) if values else np.full((1, 1), np.nan)
    present = ~np.isnan(table)
    return _divide(np.where(present, table, 0).sum(axis=0), present.sum(axis=0).astype(np.float64))


class WeightedFroc:
    """Sensitivity at `RATES` false positives per image."""

    def __init__(self, flat: Flat, claims: Ints) -> None:
        self._flat = flat
        self._false = np.flatnonzero(claims == NONE)
        self._ends = ends_of_ties(flat.scores)
        self._alarms_by_end = np.searchsorted(self._false, self._ends, side="right")
        self._hits = np.flatnonzero(claims != NONE)
        self._first_hits = first_hits(flat, self._hits)
        self._lesions_by_image = np.bincount(flat.true_image_of, minlength=flat.images)

    def __call__(self, weights: Reals) -> tuple[Reals, Reals]:
        """Return the sensitivity at lesion level and at image level, each [rates, r]."""
        images = weights.sum(axis=1)
        false = np.zeros((len(weights), len(self._false) + 1))
        np.cumsum(weights[:, self._flat.image_of[self._false]], axis=1, out=false[:, 1:])
        false = false[:, self._alarms_by_end]
        limits = np.array(RATES) * images[:, None]
        cuts = np.stack([np.searchsorted(*row, side="right") for row in zip(false, limits, strict=True)])
        kept = np.concatenate(([0], self._ends + 1))[cuts]  # [r, rates]: number of detections at the threshold
        lesions = self._found(weights, self._hits, kept) / self._or_nan(weights @ self._lesions_by_image)
        finds = self._found(weights, self._first_hits, kept) / self._or_nan(weights @ (self._lesions_by_image > 0))
        return lesions, finds

    def _found(self, weights: Reals, hits: Ints, kept: Ints) -> Reals:
        sums = np.zeros((len(weights), len(hits) + 1))
        np.cumsum(weights[:, self._flat.image_of[hits]], axis=1, out=sums[:, 1:])
        return np.take_along_axis(sums, np.searchsorted(hits, kept), axis=1).T

    @staticmethod
    def _or_nan(values: Reals) -> Reals:
        return np.where(values > 0, values, np.nan)


class WeightedAuroc:
    """AUROC of images with any finding against images without one."""

    def __init__(self, flat: Flat) -> None:
        scores = flat.image_scores
        self._order = np.argsort(-scores, kind="stable")
        ends = ends_of_ties(scores[self._order])
        self._starts = np.concatenate(([0], ends[:-1] + 1)).astype(np.int64)
        self._positive = flat.abnormal[self._order]

    def __call__(self, weights: Reals) -> Reals:
        """Return the AUROC of each resample: [r]."""
        ordered = weights[:, self._order]
        hits = np.add.reduceat(ordered * self._positive, self._starts, axis=1)
        alarms = np.add.reduceat(ordered * ~self._positive, self._starts, axis=1)
        positives, negatives = hits.sum(axis=1), alarms.sum(axis=1)
        below = negatives[:, None] - np.cumsum(alarms, axis=1)
        return _divide((hits * (below + alarms / 2)).sum(axis=1), positives * negatives)


class WeightedNoFinding:
    """Average precision of "No finding"; see `voc.no_finding_ap`."""

    def __init__(self, flat: Flat) -> None:
        order = np.argsort(flat.image_scores, kind="stable")
        hits = np.flatnonzero(~flat.abnormal[order])
        self._ranking = Ranking(order, [hits], (~flat.abnormal).astype(np.int64))
        self._abnormal = flat.abnormal

    def __call__(self, weights: Reals) -> Reals:
        """Return the average precision of each resample: [r]. It is undefined without an abnormal image."""
        return np.where(weights @ self._abnormal > 0, self._ranking.voc(weights), np.nan)


def _divide(values: Reals, by: Reals) -> Reals:
    """Divide; the result is NaN if the divisor is 0."""
    quotient: Reals = np.full(np.broadcast_shapes(values.shape, by.shape), np.nan)
    np.divide(values, by, out=quotient, where=np.broadcast_to(by > 0, quotient.shape))
    return quotient
