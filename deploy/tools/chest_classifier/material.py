"""Training examples of the classifier: pictures of each class, each varied at random."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from deploy.tools.chest_classifier.negatives import DRAWN, part, shuffled
from deploy.tools.chest_classifier.pictures import SIDE_PX
from deploy.tools.chest_classifier.variation import Floats, turn, vary
from shared.imaging.chest_classifier.card import CLASSES, FRONTAL, INVERTED, OTHER, ROTATED
from shared.imaging.chest_classifier.network import standardise
from shared.phantoms import make_phantom

T = TypeVar("T")

#: How often each class is shown.
_SHARES = {FRONTAL: 0.35, ROTATED: 0.2, INVERTED: 0.2, OTHER: 0.25}
#: The share of phantoms among the chests. Then the shares of given pictures, of parts and of shuffled images among the
#: pictures that show no chest; the rest is drawn.
_PHANTOMS, _GIVEN, _PARTS, _SHUFFLED = 0.2, 0.3, 0.15, 0.1
#: The share of inverted chests that are turned as well, and of pictures without a chest that are inverted or turned.
_ALSO_TURNED, _ANYHOW = 0.2, 0.3
#: The phantoms' seeds begin here, far from those of any demo or detector.
_PHANTOM_SEED = 3_000_000


@dataclass(frozen=True)
class Material:
    """Images [SIDE_PX, SIDE_PX] in 0–1 to vary."""

    chests: Sequence[Floats]
    phantoms: Sequence[Floats]
    #: By kind, what is no frontal chest: as it was given, and as it was drawn. Kinds come up equally often, however
    #: many pictures one has.
    given: Mapping[str, Sequence[Floats]]
    drawn: Mapping[str, Sequence[Floats]]

    def batches(
        self, rng: np.random.Generator, count: int, size: int, side_px: int
    ) -> Iterator[tuple[Floats, NDArray[np.int64]]]:
        """Yield pictures [size, side, side] as the network wants them, and the index of each one's class."""
        for _ in range(count):
            labels = rng.choice(len(CLASSES), size, p=list(_SHARES.values()))
            yield np.stack([standardise(self.draw(CLASSES[label], rng, side_px)) for label in labels]), labels

    def draw(self, name: str, rng: np.random.Generator, side_px: int) -> Floats:
        """A picture [side, side] of a class."""
        if name == OTHER:
            picture = vary(self._other(rng), rng, side_px)
            picture = turn(picture, rng) if rng.random() < _ANYHOW else picture
            return 1 - picture if rng.random() < _ANYHOW else picture
        images = self.phantoms if self.phantoms and rng.random() < _PHANTOMS else self.chests
        picture = vary(_one_of(images, rng), rng, side_px)
        if name == ROTATED or (name == INVERTED and rng.random() < _ALSO_TURNED):
            picture = turn(picture, rng)
        return 1 - picture if name == INVERTED else picture

    def _other(self, rng: np.random.Generator) -> Floats:
        chosen = rng.random()
        if chosen < _PARTS:
            return part(_one_of(self.chests, rng), rng)
        if chosen < _PARTS + _SHUFFLED:
            return shuffled(_one_of(self.chests, rng), rng)
        kinds = self.given if self.given and chosen < _PARTS + _SHUFFLED + _GIVEN else self.drawn
        return _one_of(_one_of(list(kinds.values()), rng), rng)


def _one_of(things: Sequence[T], rng: np.random.Generator) -> T:
    return things[int(rng.integers(len(things)))]


def draw_negatives(count: int, seed: int = 0) -> dict[str, list[Floats]]:
    """Draw as many pictures of each kind."""
    rng = np.random.default_rng(seed)
    return {kind: [draw(rng, SIDE_PX) for _ in range(count)] for kind, draw in DRAWN.items()}


def draw_phantoms(count: int, seed: int = _PHANTOM_SEED) -> list[Floats]:
    """Draw phantoms on images of several shapes."""
    images = [make_phantom(seed + index, SIDE_PX, SIDE_PX - 16 * (index % 3)).pixels for index in range(count)]
    return [np.asarray(image, np.float32) for image in images]
