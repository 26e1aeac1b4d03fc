"""How often readers find what is there, and draw what nobody else sees: fitted to their boxes after a consensus.

The model of Dawid and Skene (1979, 10.2307/2346806) for findings instead of items: an image has true findings of a
class at a rate; each of its readers finds one with the class's (and the reader's own) probability; and each reader
draws private false boxes at a rate. A box that two readers drew is true by assumption. True findings that nobody drew
are estimated as in capture-recapture. It is fitted by expectation-maximization.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.training.dataset_source import Consensus
from trainer.datasets.annotations import AnnotatedImage, Annotations

#: Images with fewer readers cannot tell a private false box from a finding that the others missed.
MIN_READERS = 3
#: Maximum number of iterations, and the change of the probabilities at which they end.
_ITERATIONS, _CHANGE = 1000, 1e-6
#: A reader's own values are drawn to the class's as by this many further findings and false boxes; those of a class to
#: 1/2 as by two.
_PRIOR_FINDINGS, _PRIOR_FALSE = 20.0, 5.0

Reals = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ClassModel:
    """The readers of one class. Arrays have one value for each reader, [R]."""

    #: The probability that a reader draws a true finding; for each reader and of all.
    detection: Reals
    mean_detection: float
    #: Private false boxes per image with a box of any class, for each reader and of all.
    false_rate: Reals
    mean_false_rate: float
    #: The share of true findings among the boxes, and the mean number of readers of their images.
    true_share: float
    readers: float

    def probability(self, drew: NDArray[np.bool_], read: NDArray[np.bool_]) -> Reals:
        """Return the probability that each box [n] is a true finding; `drew` and `read` are [n, R]."""
        patterns = np.where(drew, self.detection, np.where(read, 1 - self.detection, 1.0)).prod(axis=1)
        true = self._true_share(read.sum(axis=1)) * patterns / (1 - self.missed(read))
        false = (1 - self._true_share(read.sum(axis=1))) * _divide(drew @ self.false_rate, read @ self.false_rate)
        return np.where(drew.sum(axis=1) > 1, 1.0, _divide(true, true + false))

    def _true_share(self, readers: NDArray[np.int64]) -> Reals:
        """Return the share of true findings among the boxes on images of so many readers, [n].

        More readers draw more false boxes, but hardly more true ones.
        """
        here, usual = (1 - (1 - self.mean_detection) ** count for count in (readers, self.readers))
        true, false = self.true_share * here / usual, (1 - self.true_share) * readers / self.readers
        return np.asarray(true / (true + false))

    def missed(self, read: NDArray[np.bool_]) -> Reals:
        """Return the probability that none of the readers in `read` [n, R] draws a true finding: [n]."""
        return np.asarray(np.where(read, 1 - self.detection, 1.0).prod(axis=1))


@dataclass(frozen=True, eq=False)
class ReaderModel:
    """The readers of all classes that have boxes, by the class's id."""

    readers: tuple[str, ...]
    classes: dict[int, ClassModel]

    def describe(self) -> dict[str, Any]:
        """Return the figures of each class by its id (as text), for the summary of a dataset."""
        return {
            str(id_): {
                "detection": round(model.mean_detection, 4),
                "false_boxes_per_reader": round(model.mean_false_rate, 6),
                "true_share": round(model.true_share, 4),
                "detection_by_reader": {
                    reader: round(float(value), 4) for reader, value in zip(self.readers, model.detection, strict=True)
                },
            }
            for id_, model in sorted(self.classes.items())
        }


def fit_readers(annotations: Annotations) -> ReaderModel | None:
    """Fit the model to boxes after a consensus; None without images of at least `MIN_READERS` readers.

    Only these images count. The result does not depend on their order.
    """
    images = [image for image in annotations.images if len(image.readers) >= MIN_READERS]
    readers = tuple(sorted({reader for image in images for reader in image.readers}))
    if not readers or any(not box.readers for image in images for box in image.boxes):
        return None
    # The other images are normal; on them, a reader neither finds nor misses anything.
    drawn_on = [image.readers for image in images if image.boxes]
    read_by = _marks(drawn_on, readers).sum(axis=0).astype(np.float64)
    classes = {}
    for category in annotations.categories:
        found = [
            (box.readers, image.readers) for image in images for box in image.boxes if box.category_id == category.id
        ]
        if found:
            drew, read = (_marks(names, readers) for names in zip(*found, strict=True))
            classes[category.id] = _fit_class(drew, read, read_by)
    return ReaderModel(readers, classes) if classes else None


def rate(annotations: Annotations, consensus: Consensus) -> tuple[Annotations, ReaderModel | None]:
    """Return boxes after a consensus with their probabilities, and the model; unchanged if there is no such model."""
    # Without a consensus, no box has several readers.
    model = None if consensus.method == "none" else fit_readers(annotations)
    return with_probabilities(annotations, model), model


def with_probabilities(annotations: Annotations, model: ReaderModel | None) -> Annotations:
    """Return the boxes with their probability of being a true finding, where the model knows class and readers."""
    if model is None:
        return annotations
    return replace(annotations, images=tuple(_rate(image, model) for image in annotations.images))


def _rate(image: AnnotatedImage, model: ReaderModel) -> AnnotatedImage:
    boxes = []
    read = _marks([image.readers], model.readers)
    for box in image.boxes:
        of_class = model.classes.get(box.category_id)
        drew = _marks([box.readers], model.readers)
        if of_class is not None and drew.any():
            probability = float(of_class.probability(drew, read)[0])
            box = replace(box, probability=round(probability, 6))
        boxes.append(box)
    return replace(image, boxes=tuple(boxes))


def _marks(names: Sequence[Sequence[str]], readers: Sequence[str]) -> NDArray[np.bool_]:
    """Return which readers are in each group of names, [n, R]."""
    place = {reader: number for number, reader in enumerate(readers)}
    marks = np.zeros((len(names), len(readers)), bool)
    for row, group in enumerate(names):
        marks[row, [place[name] for name in group if name in place]] = True
    return marks


def _fit_class(drew: NDArray[np.bool_], read: NDArray[np.bool_], read_by: Reals) -> ClassModel:
    """Fit one class to its boxes, `drew` and `read` [n, R]; `read_by` [R] counts the images of each reader."""
    ones = np.ones(len(read_by))
    model = ClassModel(0.6 * ones, 0.6, ones, 1.0, 0.7, float(read.sum(axis=1).mean()))
    for _ in range(_ITERATIONS):
        true = model.probability(drew, read)
        chances = (true / (1 - model.missed(read))) @ read  # with the findings that nobody drew
        hits, false = true @ drew, (1 - true) @ drew
        mean = float((hits.sum() + 1) / (chances.sum() + 2))
        mean_false = float(false.sum() / read_by.sum())
        before = model.detection
        model = ClassModel(
            detection=(hits + _PRIOR_FINDINGS * mean) / (chances + _PRIOR_FINDINGS),
            mean_detection=mean,
            false_rate=(false + _PRIOR_FALSE) / (read_by + _PRIOR_FALSE / mean_false) if mean_false else 0 * ones,
            mean_false_rate=mean_false,
            true_share=float(true.mean()),
            readers=model.readers,
        )
        if np.abs(model.detection - before).max() < _CHANGE:
            break
    return model


def _divide(values: Reals, by: Reals) -> Reals:
    return np.divide(values, by, out=np.zeros_like(by), where=by > 0)
