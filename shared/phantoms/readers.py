"""Simulated readers of phantoms, who miss lesions, misname them and draw what is not there, as those of a real table.

`readers.json` has the figures of VinBigData's table, by `deploy/tools/fit_reader_figures.py`. A reader finds a lesion
with a probability that rises with its contrast; the contrasts of a class are spread so that the probability fitted to
the simulated boxes is the class's own.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from shared.phantoms.figures import CLASS_NAMES, FIGURES, Pair
from shared.phantoms.marks import Box
from shared.phantoms.phantom import Phantom

READERS = ("R1", "R2", "R3")
#: The contrast that half of the readers see, the slope of the logit over the contrast's logarithm, and the standard
#: deviation of this logarithm within a class.
MIDDLE, SLOPE, SPREAD = 0.2, 2.5, 0.4
#: Contrasts are at most this many standard deviations from the middle of their class.
_REACH = 2.0
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(32)


@dataclass(frozen=True)
class ReaderFigures:
    """The readers of one class; see `deploy.tools.fit_reader_figures.fit`."""

    class_id: int
    detection: float
    seen_by: tuple[float, float, float]
    together: float
    offset: Pair
    stretch: Pair
    confused: Mapping[int, float]

    @cached_property
    def middle_contrast(self) -> float:
        """The median contrast of the class's lesions.

        A fit that assumes one probability for all lesions finds E[p³] / E[p²].
        """
        low, middle, high = 0.01, 1.0, 10.0
        for _ in range(50):
            middle = math.sqrt(low * high)
            p = _chance(middle)
            low, high = (middle, high) if _mean(p**3) / _mean(p**2) < self.detection else (low, middle)
        return middle

    @cached_property
    def findings(self) -> float:
        """True findings per image with a box, with those that no reader drew."""
        p = _chance(self.middle_contrast)
        return (self.seen_by[1] + self.seen_by[2]) / (3 * _mean(p**2) - 2 * _mean(p**3))

    def drawn_alone(self) -> float:
        """True findings per image that exactly one of three readers draws."""
        p = _chance(self.middle_contrast)
        return 3 * self.findings * _mean(p * (1 - p) ** 2)

    @cached_property
    def confused_shares(self) -> list[float]:
        """The share of each class of `confused`."""
        return [chance / sum(self.confused.values()) for chance in self.confused.values()]

    @cached_property
    def confused_at(self) -> float:
        """The mean detection probability of the findings on which `confused` was counted: two of three drew them."""
        p = _chance(self.middle_contrast)
        return _mean(p**3 * (1 - p)) / _mean(p**2 * (1 - p))

    def misnamed(self) -> float:
        """Findings per image that one reader draws as any other class."""
        p = _chance(self.middle_contrast)
        return self.findings * _mean((1 - p) * self.confusion(p))

    def confusion(self, p: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the probability that a reader misnames a lesion that is not drawn under its name.

        It is in proportion to the detection probability `p`: nobody misnames what nobody sees.
        """
        return np.minimum(1.0, sum(self.confused.values()) * p / self.confused_at)


def detection_probability(contrast: float) -> float:
    """Return the probability that a reader draws a lesion."""
    return float(1 / (1 + (MIDDLE / contrast) ** SLOPE))


def draw_contrast(class_id: int, rng: np.random.Generator) -> float:
    """Draw the contrast of a lesion."""
    spread = SPREAD * np.clip(rng.standard_normal(), -_REACH, _REACH)
    return float(READER_FIGURES[class_id].middle_contrast * np.exp(spread))


def read_phantom(
    phantom: Phantom, expected: Sequence[float], rng: np.random.Generator
) -> dict[str, tuple[tuple[int, Box], ...]]:
    """Return the boxes that each reader draws, as (class id, xyxy in pixels of the phantom).

    `expected` has for each class the mean number of lesions on an abnormal phantom of the set: private boxes are in
    proportion to it. As in the table, all readers call the same phantoms normal, and draw something on the others.
    """
    if not phantom.lesions:
        return dict.fromkeys(READERS, ())
    return {reader: tuple(_read(phantom, expected, rng)) for reader in READERS}


def _read(phantom: Phantom, expected: Sequence[float], rng: np.random.Generator) -> list[tuple[int, Box]]:
    size_px = phantom.pixels.shape[1], phantom.pixels.shape[0]
    drawn = []
    for lesion in phantom.lesions:
        class_id = lesion.class_id
        figures = READER_FIGURES[class_id]
        p = detection_probability(lesion.contrast)
        if rng.random() >= p:
            if rng.random() >= figures.confusion(np.array(p)):
                continue
            class_id = int(rng.choice([*figures.confused], p=figures.confused_shares))
        drawn.append((class_id, _jitter(lesion.box_xyxy_px, figures, size_px, rng)))
    for class_id, count in enumerate(rng.poisson(PRIVATE * expected)):
        drawn += [(class_id, private_box(class_id, size_px, rng)) for _ in range(count)]
    if not drawn:
        clearest = max(phantom.lesions, key=lambda lesion: lesion.contrast)
        figures = READER_FIGURES[clearest.class_id]
        drawn.append((clearest.class_id, _jitter(clearest.box_xyxy_px, figures, size_px, rng)))
    return drawn


def _jitter(box: Box, figures: ReaderFigures, size_px: tuple[int, int], rng: np.random.Generator) -> Box:
    left, top, right, bottom = box
    size = np.array((right - left, bottom - top))
    centre = np.array(((left + right) / 2, (top + bottom) / 2)) + size * rng.standard_normal(2) * figures.offset
    return _around(centre, size * np.exp(rng.standard_normal(2) * figures.stretch), size_px)


def private_box(class_id: int, size_px: tuple[int, int], rng: np.random.Generator) -> Box:
    """Draw a box of a class anywhere in an image of (width, height), by the figures of the table."""
    figures = FIGURES[class_id]
    centre = np.array(figures.centre_mean) + rng.standard_normal(2) * figures.centre_std
    size = np.exp(np.array(figures.log_size_mean) + np.clip(rng.standard_normal(2), -2, 2) * figures.log_size_std)
    return _around(np.clip(centre, 0.02, 0.98) * size_px, size * size_px, size_px)


def _around(centre: NDArray[np.float64], size: NDArray[np.float64], size_px: tuple[int, int]) -> Box:
    """Return the box around a centre inside the image."""
    left, top = np.clip(centre - size / 2, 0, np.subtract(size_px, 1))
    right, bottom = np.clip(centre + size / 2, (left + 1, top + 1), size_px)
    return float(left), float(top), float(right), float(bottom)


def _chance(middle_contrast: float) -> NDArray[np.float64]:
    """Return the detection probability at each node of a class's contrasts."""
    contrast = middle_contrast * np.exp(SPREAD * np.clip(_NODES, -_REACH, _REACH))
    return np.asarray(1 / (1 + (MIDDLE / contrast) ** SLOPE))


def _mean(values: NDArray[np.float64]) -> float:
    return float(np.average(values, weights=_WEIGHTS))


def _private_shares() -> NDArray[np.float64]:
    """Return by class how many private boxes a reader draws for each true finding, [C].

    They are the boxes of one reader in the table that are neither true findings that the others missed, nor findings
    of other classes under another name.
    """
    shares = []
    for figures in READER_FIGURES:
        misnamed = 0.0
        for other in READER_FIGURES:
            share = other.confused.get(figures.class_id, 0.0) / sum(other.confused.values())
            misnamed += other.misnamed() * share
        alone = figures.seen_by[0] - figures.drawn_alone() - 3 * misnamed
        shares.append(max(0.0, alone / 3) / figures.findings)
    return np.array(shares)


#: One entry for each class; its index is the class's id.
READER_FIGURES = TypeAdapter(tuple[ReaderFigures, ...]).validate_json(
    files("shared.phantoms").joinpath("readers.json").read_bytes()
)
assert len(READER_FIGURES) == len(CLASS_NAMES)
PRIVATE = _private_shares()
