"""The boxes of one image, true or detected: what every metric compares."""

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Boxes:
    """The boxes of one image, true or detected."""

    category_ids: NDArray[np.int64]  # [n]
    #: In original pixels.
    boxes_xyxy: Floats  # [n, 4]
    #: [n]; those of true boxes are not read.
    scores: Floats

    def where(self, mask: NDArray[np.bool_]) -> Self:
        """Return the boxes that a mask [n] chooses."""
        return replace(
            self, category_ids=self.category_ids[mask], boxes_xyxy=self.boxes_xyxy[mask], scores=self.scores[mask]
        )
