"""Reduces an image by averaging stored values over areas, without the padding."""

from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from shared.imaging.grey_levels import Pixels

_Values = TypeVar("_Values", Pixels, NDArray[np.float32])

#: A reduced pixel has the mean of its unpadded area if that is at least this share of it. Otherwise it is padding.
MIN_SHARE = 0.5


def shrink(
    pixels: Pixels, height_px: int, width_px: int, padding: tuple[int, int] | None = None
) -> tuple[Pixels, NDArray[np.bool_] | None]:
    """Average `pixels` [H, W] over areas to [height_px, width_px]; returns the result and a mask of its padding.

    Stored values from the first to the last of `padding` are excluded from averages: they differ much from the image
    content, and would draw a seam around it. The mask is None if no pixel is padding, or if all pixels would be.
    """
    mask = _find(pixels, padding) if padding else None
    if mask is None:
        return _average(pixels, height_px, width_px), None
    inside = mask == 0
    share = _average(inside.astype(np.float32), height_px, width_px)
    total = _average(np.multiply(pixels, inside, dtype=np.float32), height_px, width_px)
    padded = share < MIN_SHARE
    values = np.rint(total / np.maximum(share, MIN_SHARE)).astype(pixels.dtype)
    return values, padded


def _find(pixels: Pixels, padding: tuple[int, int]) -> NDArray[np.uint8] | None:
    """Return a mask [H, W] that is nonzero at padding; None if no pixel is padding, or if all are."""
    limits = np.iinfo(pixels.dtype)
    first, last = max(padding[0], limits.min), min(padding[1], limits.max)
    if first > last:
        return None
    mask = np.asarray(cv2.inRange(pixels, np.array(first), np.array(last)), np.uint8)
    return mask if 0 < cv2.countNonZero(mask) < mask.size else None


def _average(values: _Values, height_px: int, width_px: int) -> _Values:
    if values.shape == (height_px, width_px):
        return values
    return np.asarray(cv2.resize(values, (width_px, height_px), interpolation=cv2.INTER_AREA), values.dtype)
