"""Mean average precision as VOC 2010 defines it, at the overlap that the VinBigData challenge used."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shared.boxes import iou

IOU_ABOVE = 0.4


@dataclass(frozen=True)
class Boxes:
    """The boxes of one image, true or detected."""

    category_ids: NDArray[np.int64]  # [n]
    boxes_xyxy: NDArray[np.float32]  # [n, 4]
    #: [n]; those of true boxes are not read.
    scores: NDArray[np.float32]


@dataclass(frozen=True)
class Evaluation:
    """How well the detections of some images agree with the truth."""

    #: None where the class has no true box in the evaluated images; such a class is left out of the mean.
    ap_by_category: dict[int, float | None]
    images: int

    @property
    def mean_ap(self) -> float | None:
        """Mean over the classes that occur; None where none does."""
        present = [ap for ap in self.ap_by_category.values() if ap is not None]
        return float(np.mean(present)) if present else None

    @property
    def absent(self) -> list[int]:
        """Return the classes without a true box."""
        return [category_id for category_id, ap in self.ap_by_category.items() if ap is None]


def evaluate_boxes(
    image_ids: Sequence[int],
    truth: Mapping[int, Boxes],
    found: Mapping[int, Boxes],
    category_ids: Sequence[int],
    iou_above: float = IOU_ABOVE,
) -> Evaluation:
    """Compute each class's average precision over the named images alone; an image without an entry has no boxes.

    As in the VOC 2010 development kit (section 3.4.1): a detection is right if the true box of its class that it
    overlaps most has an intersection over union above the limit and was not claimed by a higher score; the area under
    the precision-recall curve is exact, after precision is made to fall monotonically.
    """
    aps = {
        category_id: _average_precision(image_ids, truth, found, category_id, iou_above) for category_id in category_ids
    }
    return Evaluation(aps, len(image_ids))


def _average_precision(
    image_ids: Sequence[int],
    truth: Mapping[int, Boxes],
    found: Mapping[int, Boxes],
    category_id: int,
    iou_above: float,
) -> float | None:
    scores: list[NDArray[np.float32]] = [np.empty(0, np.float32)]
    right: list[NDArray[np.bool_]] = [np.empty(0, bool)]
    positives = 0
    for image_id in image_ids:
        true_boxes = _select(truth.get(image_id), category_id)
        positives += len(true_boxes)
        if (detections := found.get(image_id)) is not None:
            mine = detections.category_ids == category_id
            order = np.argsort(-detections.scores[mine], kind="stable")
            scores.append(detections.scores[mine][order])
            right.append(_match(detections.boxes_xyxy[mine][order], true_boxes, iou_above))
    if not positives:
        return None
    hits = np.concatenate(right)[np.argsort(-np.concatenate(scores), kind="stable")]
    true_positives = np.cumsum(hits)
    recall = np.concatenate(([0.0], true_positives / positives))
    precision = true_positives / np.arange(1, len(hits) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(recall) * envelope))


def _select(boxes: Boxes | None, category_id: int) -> NDArray[np.float32]:
    if boxes is None:
        return np.empty((0, 4), np.float32)
    return np.asarray(boxes.boxes_xyxy[boxes.category_ids == category_id])


def _match(detected: NDArray[np.float32], true: NDArray[np.float32], iou_above: float) -> NDArray[np.bool_]:
    """Say which detections [d, 4], best first, are right; each claims the true box [t, 4] it overlaps most."""
    right = np.zeros(len(detected), bool)
    if not len(true):
        return right
    claimed = np.zeros(len(true), bool)
    overlaps = iou(detected, true)
    for row, column in enumerate(overlaps.argmax(axis=1)):
        right[row] = overlaps[row, column] > iou_above and not claimed[column]
        claimed[column] |= right[row]
    return right
