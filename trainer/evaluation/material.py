"""The input of an evaluation: images of a split, their true boxes and the boxes that a model detected."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray

from shared.detector.card import Category
from trainer.evaluation.boxes import Boxes
from trainer.evaluation.flat import Flat, flatten


@dataclass(frozen=True)
class EvaluationSet:
    """Images with their true and detected boxes. Only images in `image_ids` count.

    An image without an entry in `truth` or in `found` has no such boxes. Boxes of other categories are ignored, but an
    image with a true box of one is not normal.
    """

    image_ids: tuple[int, ...]
    #: The group of each image: the patient's pseudonym if known, else the image's own id.
    patients: tuple[str, ...]
    categories: tuple[Category, ...]
    truth: Mapping[int, Boxes]
    found: Mapping[int, Boxes]
    #: Width and height of each image in original pixels; only the pictures of a report need them.
    sizes_px: Mapping[int, tuple[int, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.image_ids) != len(self.patients):
            raise ValueError(f"{len(self.image_ids)} images, but {len(self.patients)} patients")
        if len(set(self.image_ids)) < len(self.image_ids):
            raise ValueError("an image is named twice")

    @cached_property
    def ordered_ids(self) -> tuple[int, ...]:
        """Return the images in the order that all metrics use, so that the given order has no effect."""
        return tuple(sorted(self.image_ids))

    @cached_property
    def flat(self) -> Flat:
        """Return all boxes as columns. Raises `ValueError` if a coordinate or score is not finite."""
        return flatten(self.ordered_ids, [category.id for category in self.categories], self.truth, self.found)

    @cached_property
    def groups(self) -> NDArray[np.int64]:
        """Return the number of each image's patient, from 0, in the order of `ordered_ids`."""
        patient_of = dict(zip(self.image_ids, self.patients, strict=True))
        ordered = [patient_of[image_id] for image_id in self.ordered_ids]
        return np.unique(np.array(ordered, dtype=np.str_), return_inverse=True)[1].astype(np.int64)

    def above(self, score_threshold: float) -> Self:
        """Return the same set without detections below a score."""
        if not len(self.flat.scores) or self.flat.scores[-1] >= score_threshold:
            return self
        return self.with_found(
            {image_id: boxes.where(boxes.scores >= score_threshold) for image_id, boxes in self.found.items()}
        )

    def with_found(self, found: Mapping[int, Boxes]) -> Self:
        """Return the same images and true boxes with the detections of another model."""
        return replace(self, found=found)
