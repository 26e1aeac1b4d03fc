"""Arithmetic on boxes: xyxy, in pixels, edges counted from the top left corner of the image."""

import numpy as np
from numpy.typing import NDArray


def iou(left: NDArray[np.float32], right: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return intersection over union of boxes [n, 4] and [m, 4], as [n, m]; 0 where both are empty."""
    near = np.maximum(left[:, None, :2], right[None, :, :2])
    far = np.minimum(left[:, None, 2:], right[None, :, 2:])
    intersection = np.clip(far - near, 0, None).astype(np.float64).prod(-1)
    area_left, area_right = (np.prod(boxes[:, 2:] - boxes[:, :2], axis=1, dtype=np.float64) for boxes in (left, right))
    union = area_left[:, None] + area_right[None] - intersection
    overlap: NDArray[np.float64] = np.divide(intersection, union, out=np.zeros_like(intersection), where=union > 0)
    return overlap
