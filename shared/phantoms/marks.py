"""The marks of lesions: where they are, how they change the image, and the box around them."""

from dataclasses import dataclass

import numpy as np

from shared.phantoms.anatomy import Side
from shared.phantoms.canvas import Layer

#: xyxy in pixels of a canvas.
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Site:
    """The place for a lesion: centre and full size (x, y) in the body frame."""

    side: Side
    centre: tuple[float, float]
    size: tuple[float, float]

    @property
    def axes(self) -> tuple[float, float]:
        """The half axes: half the size."""
        return self.size[0] / 2, self.size[1] / 2


@dataclass(frozen=True)
class Mark:
    """The changes of a lesion to the image; layers are float32 [H, W]."""

    #: Density to add; negative for air.
    density: Layer
    #: The share of the lesion in each pixel, 0–1; the box is computed from it.
    extent: Layer
    #: The share of the lung markings that the lesion removes, 0–1.
    cleared: Layer | None = None

    def faded(self, contrast: float) -> "Mark":
        """Return the mark with a fraction of its change of the image; its extent stays."""
        factor = np.float32(contrast)
        cleared = None if self.cleared is None else self.cleared * min(factor, np.float32(1))
        return Mark(self.density * factor, self.extent, cleared)


def box_around(extent: Layer) -> Box | None:
    """Return the tight box around an extent; None if the lesion is not visible."""
    peak = float(extent.max())
    if peak < 0.2:
        return None
    seen = extent > 0.3 * peak
    xs, ys = np.flatnonzero(seen.any(axis=0)), np.flatnonzero(seen.any(axis=1))
    return float(xs[0]), float(ys[0]), float(xs[-1] + 1), float(ys[-1] + 1)
