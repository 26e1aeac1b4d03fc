"""Arithmetic on boxes: xyxy, in pixels, measured between pixel edges from the top left corner of the image."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

#: Width and height of an image in pixels.
Size = tuple[int, int]


def rescale(boxes_xyxy: ArrayLike, from_px: Size, to_px: Size) -> NDArray[np.float64]:
    """Convert boxes [n, 4] to another size of the same image, such as from a rendition to its original.

    Coordinates refer to pixel edges, so 0 and the right and bottom edges of both sizes match. The factors of x and y
    differ slightly if the shorter side was rounded, and much if the original's pixels are not square.
    """
    boxes: NDArray[Any] = np.asarray(boxes_xyxy).reshape(-1, 4)
    return np.asarray(boxes * np.tile(np.divide(to_px, from_px), 2), np.float64)


def iou(left: NDArray[np.float32], right: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the intersection over union of boxes [n, 4] and [m, 4], as [n, m]; 0 if both boxes are empty."""
    near = np.maximum(left[:, None, :2], right[None, :, :2])
    far = np.minimum(left[:, None, 2:], right[None, :, 2:])
    intersection = np.clip(far - near, 0, None).astype(np.float64).prod(-1)
    area_left, area_right = (np.prod(boxes[:, 2:] - boxes[:, :2], axis=1, dtype=np.float64) for boxes in (left, right))
    union = area_left[:, None] + area_right[None] - intersection
    overlap: NDArray[np.float64] = np.divide(intersection, union, out=np.zeros_like(intersection), where=union > 0)
    return overlap
