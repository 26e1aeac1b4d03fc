"""Counts the flags of the classifier by kind of picture, with confidence intervals."""

from collections.abc import Iterable, Sequence
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from deploy.tools.chest_classifier.negatives import part
from deploy.tools.chest_classifier.pictures import Picture
from shared.imaging.chest_classifier.card import Rate, Tested
from shared.imaging.chest_classifier.classifier import ChestClassifier
from shared.vocabulary.flags import Flag

Rendition = NDArray[np.uint8]

FLAGS = (Flag.ROTATED, Flag.SUSPECTED_INVERSION, Flag.NOT_A_CHEST)


def measure_on_chests(classifier: ChestClassifier, name: str, images: Sequence[Picture]) -> dict[str, Tested]:
    """Frontal images as they are, laid in each other way, inverted, and cut to a corner or a strip."""
    renditions = [image.rendition for image in images]
    rng = np.random.default_rng(0)
    kinds: dict[str, list[Rendition]] = {
        name: renditions,
        f"{name}, rotated": [np.asarray(np.rot90(image, quarters)) for image in renditions for quarters in (1, 2, 3)],
        f"{name}, inverted": [np.bitwise_not(image) for image in renditions],
        f"{name}, cut to a part": [part(image, rng) for image in renditions],
    }
    return {kind: measure(classifier, pictures) for kind, pictures in kinds.items()}


def measure(classifier: ChestClassifier, renditions: Iterable[Rendition]) -> Tested:
    """Count the flags over renditions [H, W] of one kind."""
    raised = [classifier.flag(classifier.look_at(np.ascontiguousarray(rendition))) for rendition in renditions]
    return Tested(rates={flag: rate(raised.count(flag), len(raised)) for flag in FLAGS})


def rate(flagged: int, of: int) -> Rate:
    """A share with its 95% interval (Wilson, 1927), which is also valid for a count of 0."""
    z = 1.959964
    share = flagged / of
    middle = share + z * z / (2 * of)
    reach = z * sqrt(share * (1 - share) / of + z * z / (4 * of * of))
    low, high = ((middle + sign * reach) / (1 + z * z / of) for sign in (-1, 1))
    return Rate(flagged=flagged, of=of, low=round(max(0.0, low), 4), high=round(min(1.0, high), 4))
