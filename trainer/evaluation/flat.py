"""All boxes of an evaluation as columns, so that metrics work on whole arrays instead of single images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.evaluation.boxes import Boxes

Ints = NDArray[np.int64]
Reals = NDArray[np.float64]


@dataclass(frozen=True)
class Flat:
    """Detections [n] by falling score, and true boxes [m] in image order. Both refer to images by number.

    Detections with equal scores are in the order of image ids, and within an image in the order of its boxes, as in
    pycocotools.
    """

    images: int
    classes: int
    image_of: Ints  # [n] 0 … images - 1
    class_of: Ints  # [n] 0 … classes - 1
    boxes_xyxy: Reals  # [n, 4]
    scores: Reals  # [n], falling
    true_image_of: Ints  # [m], rising
    true_class_of: Ints  # [m]
    true_boxes_xyxy: Reals  # [m, 4]
    #: Whether an image has a true box of any class, including classes that are not evaluated: [images].
    abnormal: NDArray[np.bool_]
    #: The model's probability of any finding: [images]. None if it has no abnormality head.
    abnormality: Reals | None = None

    @property
    def image_scores(self) -> Reals:
        """Return the score of any finding in each image, [images]: the head's probability, else the highest score."""
        return highest_scores(self) if self.abnormality is None else self.abnormality

    def boxes_by_image(self, category: int) -> Ints:
        """Return the number of true boxes of a class in each image: [images]."""
        return np.bincount(self.true_image_of[self.true_class_of == category], minlength=self.images).astype(np.int64)


@dataclass(frozen=True)
class Pairs:
    """Overlapping pairs of a detection and a true box of one image: [p], ordered by detection, then by true box."""

    detection: Ints
    true: Ints
    iou: Reals

    def where(self, mask: NDArray[np.bool_]) -> "Pairs":
        """Return the pairs that the mask [p] selects."""
        return Pairs(self.detection[mask], self.true[mask], self.iou[mask])


def flatten(
    image_ids: Sequence[int], category_ids: Sequence[int], truth: Mapping[int, Boxes], found: Mapping[int, Boxes]
) -> Flat:
    """Collect the boxes of the given images and categories. Raises `ValueError` if a number is not finite."""
    true_image_of, true_class_of, true_boxes, _ = _collect(image_ids, category_ids, truth)
    image_of, class_of, boxes, scores = _collect(image_ids, category_ids, found)
    if not (np.isfinite(true_boxes).all() and np.isfinite(boxes).all() and np.isfinite(scores).all()):
        raise ValueError("a box or a score is not finite")
    order = np.argsort(-scores, kind="stable")
    return Flat(
        len(image_ids),
        len(category_ids),
        image_of[order],
        class_of[order],
        boxes[order],
        scores[order],
        true_image_of,
        true_class_of,
        true_boxes,
        np.array([image_id in truth and len(truth[image_id].category_ids) > 0 for image_id in image_ids], bool),
        _abnormality(image_ids, found),
    )


def highest_scores(flat: Flat, chosen: NDArray[np.bool_] | None = None) -> Reals:
    """Return each image's highest score, [images], among all or the `chosen` detections [n]; 0 without detections."""
    image_of: Ints = flat.image_of if chosen is None else flat.image_of[chosen]
    scores = np.zeros(flat.images)
    np.maximum.at(scores, image_of, flat.scores if chosen is None else flat.scores[chosen])
    return scores


def _abnormality(image_ids: Sequence[int], found: Mapping[int, Boxes]) -> Reals | None:
    """Return the probability of each image; None unless all have one."""
    known = [found[image_id].abnormality if image_id in found else None for image_id in image_ids]
    return None if None in known else np.array(known, np.float64)


def _collect(
    image_ids: Sequence[int], category_ids: Sequence[int], boxes_of: Mapping[int, Boxes]
) -> tuple[Ints, Ints, Reals, Reals]:
    """Return image numbers, class numbers, boxes and scores of all boxes of the given categories, in image order."""
    entries = [(number, boxes_of[image_id]) for number, image_id in enumerate(image_ids) if image_id in boxes_of]
    lengths = [len(boxes.category_ids) for _, boxes in entries]
    image_of = np.repeat(np.array([number for number, _ in entries], np.int64), lengths)
    ids = np.concatenate([np.empty(0, np.int64), *(boxes.category_ids for _, boxes in entries)])
    coordinates = np.concatenate([np.empty((0, 4)), *(boxes.boxes_xyxy.reshape(-1, 4) for _, boxes in entries)])
    scores = np.concatenate([np.empty(0), *(boxes.scores for _, boxes in entries)])
    if not len(image_of) == len(ids) == len(coordinates) == len(scores):
        raise ValueError("an image's category ids, boxes and scores differ in number")
    by_id = np.argsort(np.array(category_ids, np.int64))
    sorted_ids = np.array(category_ids, np.int64)[by_id]
    place = np.minimum(np.searchsorted(sorted_ids, ids), max(len(sorted_ids) - 1, 0))
    known = sorted_ids[place] == ids if len(sorted_ids) else np.zeros(len(ids), bool)
    return image_of[known], by_id[place[known]], coordinates[known], scores[known]


def overlap(flat: Flat, above: float) -> Pairs:
    """Return all pairs of a detection and a true box of the same image, of any class, with an IoU above the limit.

    Computed from corner, width and height in double precision as in pycocotools, so that the limits apply equally.
    """
    counts = np.bincount(flat.true_image_of, minlength=flat.images)
    starts = np.cumsum(counts) - counts
    partners = counts[flat.image_of]
    detection = np.repeat(np.arange(len(flat.image_of)), partners)
    within = np.arange(len(detection)) - np.repeat(np.cumsum(partners) - partners, partners)
    true = starts[flat.image_of[detection]] + within
    left, right = flat.boxes_xyxy[detection], flat.true_boxes_xyxy[true]
    left_size, right_size = left[:, 2:] - left[:, :2], right[:, 2:] - right[:, :2]
    far = np.minimum(left[:, :2] + left_size, right[:, :2] + right_size)
    shared = np.clip(far - np.maximum(left[:, :2], right[:, :2]), 0, None).prod(axis=1)
    union = left_size.prod(axis=1) + right_size.prod(axis=1) - shared
    iou = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return Pairs(detection, true, iou).where(iou > above)
