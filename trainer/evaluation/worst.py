"""The images to inspect first: the clearest misses, and the false positives with the highest scores."""

from dataclasses import dataclass

import numpy as np

from trainer.evaluation.flat import Flat, Ints, Reals
from trainer.evaluation.matching import NONE


@dataclass(frozen=True)
class Example:
    """A box to show, with the score of its detection."""

    image: int  # number of the image, see `Flat`
    category: int  # number of the class
    box_xyxy: tuple[float, float, float, float]
    #: Score of the false positive, or of the detection that found the true box; None without such a detection.
    score: float | None


def worst_misses(flat: Flat, claims: Ints, most: int) -> list[Example]:
    """Return missed true boxes, then those found with the lowest scores; larger boxes first, one per image.

    `claims` [n] is the result of `match_voc`.
    """
    found = np.flatnonzero(claims != NONE)
    scores = np.full(len(flat.true_class_of), -np.inf)
    scores[claims[found]] = flat.scores[found]
    sizes = flat.true_boxes_xyxy[:, 2:] - flat.true_boxes_xyxy[:, :2]
    order = np.lexsort((flat.true_image_of, -sizes.prod(axis=1), scores))
    return [
        Example(
            int(flat.true_image_of[box]),
            int(flat.true_class_of[box]),
            _as_tuple(flat.true_boxes_xyxy[box]),
            float(scores[box]) if scores[box] > -np.inf else None,
        )
        for box in _one_an_image(flat.true_image_of, order)[:most]
    ]


def worst_false_alarms(flat: Flat, claims: Ints, most: int) -> list[Example]:
    """Return the false positives with the highest scores, one per image. `claims` [n] is the result of `match_voc`."""
    false = np.flatnonzero(claims == NONE)
    return [
        Example(int(flat.image_of[n]), int(flat.class_of[n]), _as_tuple(flat.boxes_xyxy[n]), float(flat.scores[n]))
        for n in _one_an_image(flat.image_of, false)[:most]
    ]


def _one_an_image(image_of: Ints, order: Ints) -> list[int]:
    """Return the first box of each image, in the given order of boxes."""
    first = np.unique(image_of[order], return_index=True)[1]
    kept: list[int] = order[np.sort(first)].tolist()
    return kept


def _as_tuple(box: Reals) -> tuple[float, float, float, float]:
    left, top, right, bottom = box.tolist()
    return left, top, right, bottom
