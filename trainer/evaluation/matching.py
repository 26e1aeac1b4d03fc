"""Which detection found which true box, under the rules of VOC and of COCO."""

import numpy as np
from numpy.typing import NDArray

from trainer.evaluation.flat import Flat, Ints, Pairs, Reals, overlap

#: Kaggle's VinBigData challenge: an intersection over union has to be above this.
IOU_ABOVE = 0.4
COCO_IOUS = np.linspace(0.5, 0.95, 10)
COCO_MAX_DETECTIONS = 100

#: A detection that found nothing, a true box that nothing found.
NONE = -1


def match_voc(flat: Flat, iou_above: float = IOU_ABOVE, *, by_class: bool = True) -> Ints:
    """Return the true box that each detection found, [n]; `NONE` for a false one.

    As in the VOC 2010 development kit (section 3.4.1): a detection is right if the true box (of its class) that it
    overlaps most has an intersection over union above the limit and was not claimed by a higher score. A second
    detection of the same true box is false.
    """
    pairs = overlap(flat, iou_above)
    if by_class:
        pairs = pairs.where(of_one_class(flat, pairs))
    return claim(pairs, len(flat.scores))


def of_one_class(flat: Flat, pairs: Pairs) -> NDArray[np.bool_]:
    """Say which pairs [p] are of the same class."""
    return np.asarray(flat.class_of[pairs.detection] == flat.true_class_of[pairs.true])


def claim(pairs: Pairs, detections: int) -> Ints:
    """Let each detection, best first, claim the true box that it overlaps most; return what each got, [detections]."""
    found = np.full(detections, NONE, np.int64)
    # Of one detection's pairs the one with the most overlap, of equal ones the first, comes first.
    best_first = np.lexsort((np.arange(len(pairs.iou)), -pairs.iou, pairs.detection))
    claimants, first = np.unique(pairs.detection[best_first], return_index=True)
    wanted = pairs.true[best_first][first]
    true, winner = np.unique(wanted, return_index=True)  # detections are in the order of scores
    found[claimants[winner]] = true
    return found


def match_coco(flat: Flat) -> NDArray[np.bool_]:
    """Say which detections [10, n] are right at each of COCO's overlaps, for boxes of every size.

    As in pycocotools: a detection takes, of the true boxes of its class that are still free and overlap it enough, the
    one that it overlaps most, of equal ones the last.
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
    """Mark the best of some true boxes [k] as taken at each overlap at which one is free; say at which, [10]."""
    if len(true) == 1:  # nearly always
        taken: NDArray[np.bool_] = free[:, true[0]] & (iou[0] >= COCO_IOUS)
        free[:, true[0]] &= ~taken
        return taken
    offered = np.where(free[:, true] & (iou >= COCO_IOUS[:, None]), iou, -1.0)
    last_best = len(true) - 1 - offered[:, ::-1].argmax(axis=1)
    levels = np.flatnonzero(offered.max(axis=1) >= 0)
    free[levels, true[last_best[levels]]] = False
    return np.isin(np.arange(len(COCO_IOUS)), levels)


def within_limit(flat: Flat) -> NDArray[np.bool_]:
    """Say which detections [n] are among the best 100 of their class in their image: COCO looks at no others."""
    key = flat.image_of * max(flat.classes, 1) + flat.class_of
    order = np.argsort(key, kind="stable")
    counts = np.unique(key, return_counts=True)[1]
    rank = np.arange(len(key)) - np.repeat(np.cumsum(counts) - counts, counts)
    kept = np.empty(len(key), bool)
    kept[order] = rank < COCO_MAX_DETECTIONS
    return kept
