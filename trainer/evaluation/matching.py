"""Matches detections to true boxes under the rules of VOC and of COCO."""

import numpy as np
from numpy.typing import NDArray

from trainer.evaluation.flat import Flat, Ints, Pairs, Reals, overlap

#: Kaggle's VinBigData challenge: the intersection over union must be above this value.
IOU_ABOVE = 0.4
COCO_IOUS = np.linspace(0.5, 0.95, 10)
COCO_MAX_DETECTIONS = 100

#: Marks a detection that matches no true box, or a true box without a detection.
NONE = -1


def match_voc(flat: Flat, *, by_class: bool = True) -> Ints:
    """Return the true box that each detection found, [n]; `NONE` for a false positive.

    As in the VOC 2010 development kit (section 3.4.1), a detection is correct if the true box (of its class) that it
    overlaps most has an intersection over union above the limit and was not claimed by a detection with a higher score.
    A second detection of the same true box is a false positive.
    """
    pairs = overlap(flat, IOU_ABOVE)
    if by_class:
        pairs = pairs.where(of_one_class(flat, pairs))
    return claim(pairs, len(flat.scores))


def of_one_class(flat: Flat, pairs: Pairs) -> NDArray[np.bool_]:
    """Return the pairs [p] whose detection and true box have the same class, as a mask."""
    return np.asarray(flat.class_of[pairs.detection] == flat.true_class_of[pairs.true])


def claim(pairs: Pairs, detections: int) -> Ints:
    """Let each detection, best first, claim the true box that it overlaps most. Return these boxes: [detections]."""
    found = np.full(detections, NONE, np.int64)
    # The first pair of each detection is the one with the highest overlap; for equal overlaps, the first one.
    best_first = np.lexsort((np.arange(len(pairs.iou)), -pairs.iou, pairs.detection))
    claimants, first = np.unique(pairs.detection[best_first], return_index=True)
    wanted = pairs.true[best_first][first]
    true, winner = np.unique(wanted, return_index=True)  # detections are ordered by score
    found[claimants[winner]] = true
    return found


def match_coco(flat: Flat) -> NDArray[np.bool_]:
    """Return which detections are correct at each of COCO's IoU limits, as a mask [10, n], for boxes of all sizes.

    As in pycocotools, a detection takes, among the free true boxes of its class with sufficient overlap, the one that
    it overlaps most; for equal overlaps, the last one.
    """
    pairs = overlap(flat, COCO_IOUS[0] - 1e-9)
    kept = within_limit(flat)
    pairs = pairs.where(of_one_class(flat, pairs) & kept[pairs.detection])
    right = np.zeros((len(COCO_IOUS), len(flat.scores)), bool)
    free = np.ones((len(COCO_IOUS), len(flat.true_class_of)), bool)
    ends = np.flatnonzero(np.diff(pairs.detection, append=-1)) + 1
    start = 0
    for end in ends.tolist():
        true = pairs.true[start:end]
        right[:, pairs.detection[start]] = _take(free, true, pairs.iou[start:end])
        start = end
    return right


def _take(free: NDArray[np.bool_], true: Ints, iou: Reals) -> NDArray[np.bool_]:
    """Take the best free true box of [k] at each IoU limit. Return the limits at which one was free, as a mask [10]."""
    if len(true) == 1:  # the most frequent case
        taken: NDArray[np.bool_] = free[:, true[0]] & (iou[0] >= COCO_IOUS)
        free[:, true[0]] &= ~taken
        return taken
    offered = np.where(free[:, true] & (iou >= COCO_IOUS[:, None]), iou, -1.0)
    last_best = len(true) - 1 - offered[:, ::-1].argmax(axis=1)
    levels = np.flatnonzero(offered.max(axis=1) >= 0)
    free[levels, true[last_best[levels]]] = False
    return np.isin(np.arange(len(COCO_IOUS)), levels)


def within_limit(flat: Flat) -> NDArray[np.bool_]:
    """Return a mask [n] of the 100 detections with the highest scores per class and image; COCO ignores all others."""
    key = flat.image_of * max(flat.classes, 1) + flat.class_of
    order = np.argsort(key, kind="stable")
    counts = np.unique(key, return_counts=True)[1]
    rank = np.arange(len(key)) - np.repeat(np.cumsum(counts) - counts, counts)
    kept = np.empty(len(key), bool)
    kept[order] = rank < COCO_MAX_DETECTIONS
    return kept
