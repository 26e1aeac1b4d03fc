"""Windows: the mapping of values to black, white and the greys between them (PS3.3 C.11.2.1.2 and C.11.2.1.3)."""

from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: Numbers beyond this are not grey levels, and results computed from them may not be finite.
MAX_VALUE = 1e30


class WindowShape(Enum):
    """The values of VOILUTFunction (0028,1056)."""

    LINEAR = "LINEAR"
    LINEAR_EXACT = "LINEAR_EXACT"
    SIGMOID = "SIGMOID"


@dataclass(frozen=True)
class Window:
    """Maps values to brightness 0–1."""

    center: float
    width: float
    shape: WindowShape = WindowShape.LINEAR

    @property
    def is_valid(self) -> bool:
        """Whether the standard allows the window: LINEAR needs a width of at least 1, the others a positive width."""
        least = 1.0 if self.shape is WindowShape.LINEAR else float(np.finfo(np.float32).tiny)
        return abs(self.center) <= MAX_VALUE and least <= self.width <= MAX_VALUE

    def apply(self, values: Floats) -> Floats:
        """Return the brightness of `values`, in 0–1."""
        center, width = self.center, self.width
        if self.shape is WindowShape.SIGMOID:
            exponent = np.clip(-4 * (values - center) / width, -700, 700)  # exp() stays finite
            return np.asarray(1 / (1 + np.exp(exponent)))
        if self.shape is WindowShape.LINEAR:  # from the centre of the first value to the centre of the last
            center, width = center - 0.5, width - 1
        low = center - width / 2
        return np.asarray(np.clip((values - low) / width, 0, 1) if width else values > low, np.float64)

    def __str__(self) -> str:
        return f"centre {self.center:.10g}, width {self.width:.10g} ({self.shape.value})"
