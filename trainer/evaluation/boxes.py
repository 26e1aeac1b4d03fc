"""The true or detected boxes of one image, which all metrics compare."""

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Boxes:
    """The true or detected boxes of one image."""

    category_ids: NDArray[np.int64]  # [n]
    #: In original pixels.
    boxes_xyxy: Floats  # [n, 4]
    #: [n]; ignored for true boxes.
    scores: Floats
    #: The model's probability that the image shows any finding; None without an abnormality head, and for true boxes.
    abnormality: float | None = None

    def where(self, mask: NDArray[np.bool_]) -> Self:
        """Return the boxes that the mask [n] selects."""
        return replace(
            self, category_ids=self.category_ids[mask], boxes_xyxy=self.boxes_xyxy[mask], scores=self.scores[mask]
        )
