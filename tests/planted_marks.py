"""Bright squares on a dark image, and where they are found again on what was made of it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DARK, BRIGHT = 0, 4095
#: Shows them as black and white.
WINDOW = {"WindowCenter": 2048, "WindowWidth": 4096}


@dataclass(frozen=True)
class Mark:
    """A bright rectangle; its edges, xyxy, in pixels of the image."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def box_xyxy_px(self) -> tuple[int, int, int, int]:
        return self.left, self.top, self.right, self.bottom

    def on(self, height_px: int, width_px: int) -> NDArray[np.uint16]:
        """An image with nothing but this mark, uint16 [H, W]."""
        image = np.full((height_px, width_px), DARK, np.uint16)
        image[self.top : self.bottom, self.left : self.right] = BRIGHT
        return image


def measure(pixels: NDArray[np.uint8]) -> tuple[float, float, float, float]:
    """The edges, xyxy, of the one bright mark on a black picture, to a fraction of its pixels.

    A pixel that the mark covers in part is as bright as that part, so brightness tells where in the pixel it ends. The
    mark has to cover some pixels as a whole.
    """
    left, right = _extent(pixels.sum(axis=0, dtype=np.float64))
    top, bottom = _extent(pixels.sum(axis=1, dtype=np.float64))
    return left, top, right, bottom


def _extent(profile: NDArray[np.float64]) -> tuple[float, float]:
    covered = profile / profile.max()
    first, last = np.flatnonzero(covered == 1)[[0, -1]]
    return float(first - covered[:first].sum()), float(last + 1 + covered[last + 1 :].sum())
