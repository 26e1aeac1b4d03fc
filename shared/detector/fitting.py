"""Fits a rendition onto the detector's canvas, without torch: it runs in the threads that fetch renditions."""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class FittedImage:
    """A rendition at the top left of a square canvas; the rest is black."""

    #: uint8 [S, S]
    canvas: NDArray[np.uint8]
    #: Canvas pixels per rendition pixel.
    scale_x: float
    scale_y: float
    #: The size of the rendition.
    height_px: int
    width_px: int


def fit_to_canvas(rendition: NDArray[np.uint8], canvas_px: int) -> FittedImage:
    """Fit a rendition, uint8 [h, w], onto a canvas; the aspect ratio is kept to the nearest pixel."""
    height, width = rendition.shape
    scale = canvas_px / max(height, width)
    fitted_height, fitted_width = max(1, round(height * scale)), max(1, round(width * scale))
    # INTER_AREA avoids aliasing when reducing, but would enlarge by repeating pixels.
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    canvas = np.zeros((canvas_px, canvas_px), np.uint8)
    fitted: NDArray[Any] = cv2.resize(rendition, (fitted_width, fitted_height), interpolation=interpolation)
    canvas[:fitted_height, :fitted_width] = fitted
    return FittedImage(canvas, fitted_width / width, fitted_height / height, height, width)
