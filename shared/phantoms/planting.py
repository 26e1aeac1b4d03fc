"""Chooses the lesions of a phantom and their sites from the fitted figures, within the limits of the anatomy."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from shared.phantoms.anatomy import Anatomy, Side
from shared.phantoms.canvas import ASPECT, Canvas
from shared.phantoms.figures import FIGURES
from shared.phantoms.lesions import DRAW, RESHAPE
from shared.phantoms.marks import Box, Mark, Site, box_around
from shared.phantoms.scene import Scene

ABNORMAL_SHARE = 0.7
COUNT_SHARES = (0.4, 0.3, 0.2, 0.1)  # one to four lesions
#: Minimum and maximum size by class, as shares of the image's width, so that a lesion is visible and fits into a lung.
SIZE_LIMITS: dict[int, tuple[float, float]] = {
    1: (0.12, 0.24), 2: (0.04, 0.09), 4: (0.13, 0.24), 5: (0.18, 0.4), 6: (0.13, 0.26), 7: (0.1, 0.22),
    8: (0.032, 0.11), 9: (0.075, 0.14), 10: (0.1, 0.26), 11: (0.05, 0.3), 12: (0.1, 0.5), 13: (0.085, 0.18),
}  # fmt: skip
#: Classes that follow the wall or the base of a lung, so their site can be outside the lung.
AT_THE_WALL = frozenset({10, 11, 12})
#: Maximum share of the smaller of two boxes that the other box overlaps.
MAX_OVERLAP = 0.15
#: Minimum share of a site's rectangle that is inside a lung.
MIN_IN_LUNG = 0.72
TRIES = 120
_REHEARSAL_PX = 256


@dataclass(frozen=True)
class Planned:
    """A lesion with its site; `draw` gives the same lesion at any resolution."""

    class_id: int
    site: Site
    seed: int
    #: Factor on the change of the image.
    contrast: float = 1.0

    def draw(self, scene: Scene) -> Mark:
        """Draw the lesion; its class must be in `DRAW`."""
        mark = DRAW[self.class_id](scene, self.site, np.random.default_rng(self.seed))
        return mark if self.contrast == 1 else mark.faded(self.contrast)


def choose_classes(rng: np.random.Generator) -> tuple[int, ...]:
    """Choose the classes of one phantom at random: none, or one to four different ones.

    Probabilities are proportional to the square root of the fitted frequencies, so that rare classes also occur in a
    small set.
    """
    if rng.random() >= ABNORMAL_SHARE:
        return ()
    count = 1 + int(rng.choice(len(COUNT_SHARES), p=COUNT_SHARES))
    weights = np.sqrt([figures.frequency for figures in FIGURES])
    return tuple(int(c) for c in rng.choice(len(FIGURES), count, replace=False, p=weights / weights.sum()))


def reshape(person: Anatomy, classes: Sequence[int], rng: np.random.Generator) -> Anatomy:
    """Return the person with the enlarged organs of the classes in `RESHAPE`."""
    for class_id in sorted(RESHAPE.keys() & set(classes)):
        person = RESHAPE[class_id](person, propose(class_id, rng), rng)
    return person


def plan(person: Anatomy, classes: Sequence[int], rng: np.random.Generator) -> list[Planned]:
    """Find a free site for each class in `DRAW` by sampling from the figures.

    The search draws each lesion on a small canvas of fixed size, so that a phantom is the same at every resolution. A
    class without a free site is left out.
    """
    scene = rehearse(person)
    planned: list[Planned] = []
    boxes: list[Box] = []
    # Classes with the fewest possible sites are placed first.
    for class_id in sorted(set(classes) & DRAW.keys(), key=lambda c: (c not in AT_THE_WALL, -SIZE_LIMITS[c][1])):
        for _ in range(TRIES):
            lesion = Planned(class_id, propose(class_id, rng), int(rng.integers(2**32)))
            if class_id not in AT_THE_WALL and not in_lung(scene, lesion.site):
                continue
            box = box_around(lesion.draw(scene).extent)
            if box and all(overlap(box, other) <= MAX_OVERLAP for other in boxes):
                planned.append(lesion)
                boxes.append(box)
                break
    return planned


def rehearse(person: Anatomy) -> Scene:
    """Return the person on a small canvas of fixed size, for the search of sites."""
    return Scene(Canvas(_REHEARSAL_PX, _REHEARSAL_PX, _REHEARSAL_PX, (_REHEARSAL_PX / 2, 0.0)), person)


def propose(class_id: int, rng: np.random.Generator, limits: tuple[float, float] | None = None) -> Site:
    """Draw a site from the figures of a class; `limits` replaces the sizes in `SIZE_LIMITS`."""
    figures = FIGURES[class_id]
    least, most = limits or SIZE_LIMITS.get(class_id, (0.04, 1.0))
    spread = np.clip(rng.standard_normal(2), -1.5, 1.5)
    shares = np.exp(np.array(figures.log_size_mean) + spread * figures.log_size_std)
    width, height = np.clip(shares * (ASPECT, 1.0), least * ASPECT, most * ASPECT)
    at = np.array(figures.centre_mean) + rng.standard_normal(2) * figures.centre_std
    x = float(at[0] - 0.5) * ASPECT
    side: Side = -1 if x < 0 else 1
    return Site(side, (x, float(at[1])), (float(width), float(height)))


def in_lung(scene: Scene, site: Site) -> bool:
    """Return whether most of a site is inside a lung."""
    (x, y), (a, b) = scene.canvas.to_px(np.array([site.centre]))[0], np.array(site.axes) * scene.canvas.scale
    window = scene.lungs[max(0, int(y - b)) : int(y + b) + 1, max(0, int(x - a)) : int(x + a) + 1]
    return window.size > 0 and float(window.mean()) >= MIN_IN_LUNG


def overlap(one: Box, other: Box) -> float:
    """Return the area of the intersection as a share of the smaller box."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    smaller = min((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return max(0.0, width) * max(0.0, height) / smaller
