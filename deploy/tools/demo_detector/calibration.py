"""Lowers the scores of a trained detector until it is quiet enough on normal films that it has not seen."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, from_numpy

from deploy.tools.demo_detector.distractors import add_distractors
from deploy.tools.demo_detector.evaluation import Image, detect
from deploy.tools.demo_detector.films import Film
from deploy.tools.demo_detector.training import seal
from shared.detector.card import ModelCard
from shared.detector.runtime import Detector
from shared.detector.weights import decode_weights

#: The wanted number of boxes per normal image, at the score from which the demo shows them.
WANTED_BOXES = 0.05
#: In each round, the odds of the classes that are seen on normal images are lowered by e to the power of this.
_STEP, _ROUNDS = 0.5, 8
#: Each film is used as it is, and this many times with distractors.
_VARIATIONS = 2
_BIAS = "roi_heads.box_predictor.cls_score.bias"


def calibrate(card: ModelCard, weights: bytes, films: Sequence[Film]) -> tuple[ModelCard, bytes, dict[str, float]]:
    """Return the model with lower scores, and by how much the logit of each class was lowered.

    `films` are normal films that were not trained on. In rounds, the logits of the classes that have a box on one of
    them are lowered, until there are few enough boxes or the rounds are over.
    """
    state = decode_weights(weights)
    images = list(_vary(films))
    lowered = np.zeros(len(card.categories) + 1, np.float32)
    sealed = card, weights
    for _ in range(_ROUNDS):
        detector = Detector(*sealed, "cpu")
        labels = [card.label_of(found.category_id) for image in images for found in detect(detector, image)]
        if len(labels) <= WANTED_BOXES * len(images):
            break
        lowered[np.unique(labels)] += _STEP
        sealed = seal(card, _lower(state, lowered))
    names = [category.name for category in card.categories]
    return *sealed, {name: value for name, value in zip(names, lowered[1:].tolist(), strict=True) if value}


def _lower(state: dict[str, Tensor], lowered: NDArray[np.float32]) -> dict[str, Tensor]:
    return {**state, _BIAS: state[_BIAS] - from_numpy(lowered)}


def _vary(films: Sequence[Film]) -> Iterator[Image]:
    for number, film in enumerate(films):
        yield film.pixels
        for variation in range(_VARIATIONS):
            yield add_distractors(film.pixels, np.random.default_rng((number, variation)))
