"""Hard phantoms: faint lesions of the sizes and numbers in a real table, which overlap, beside organs of normal size.

The contrast of each lesion is drawn by its class; hearts and aortas are enlarged by a part of the usual change. So a
detector finds about as many of them as of the findings on real images, and `readers` simulates who draws what.
"""

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np

from shared.phantoms.anatomy import Anatomy
from shared.phantoms.exposure import Exposure
from shared.phantoms.figures import FIGURES
from shared.phantoms.lesions import DRAW, RESHAPE
from shared.phantoms.marks import Box, box_around
from shared.phantoms.phantom import Phantom, compose
from shared.phantoms.planting import (
    ABNORMAL_SHARE,
    AT_THE_WALL,
    TRIES,
    Planned,
    in_lung,
    overlap,
    propose,
    rehearse,
)
from shared.phantoms.readers import READER_FIGURES, draw_contrast

#: Minimum and maximum size, as shares of the image's width.
SIZE_LIMITS = (0.012, 1.0)
#: Maximum overlap of two lesions of one class, as a share of the smaller; those of two classes may overlap completely.
MAX_OVERLAP = 0.15
#: The part of an enlargement that every enlarged organ has; the rest grows with its contrast.
LEAST_ENLARGEMENT = 0.3
#: For balanced sets: the maximum number of classes on an abnormal phantom.
MAX_CLASSES = 5
_STREAM = 0xA4D


def make_hard_phantom(seed: int, height_px: int = 1024, width_px: int = 860, *, balanced: bool = False) -> Phantom:
    """Draw the hard phantom of a seed; except for the noise, it is the same at any size.

    `balanced`: classes are equally frequent; else as frequent as in the table.
    """
    choice, body, planting, texture, taking, grain = np.random.default_rng((seed, _STREAM)).spawn(6)
    exposure = Exposure.draw(taking)
    person, organs, planned = plan_hard(Anatomy.draw(body), _choose(choice, balanced=balanced), planting)
    return compose(seed, (height_px, width_px), exposure, person, organs, planned, texture, grain)


def expected_lesions(*, balanced: bool) -> tuple[float, ...]:
    """Return for each class the mean number of lesions on an abnormal phantom."""
    if balanced:
        share = (1 + MAX_CLASSES) / 2 / len(FIGURES)
        return tuple(share * figures.together for figures in READER_FIGURES)
    return tuple(figures.findings for figures in READER_FIGURES)


def plan_hard(
    healthy: Anatomy, classes: Sequence[int], rng: np.random.Generator
) -> tuple[Anatomy, dict[int, float], list[Planned]]:
    """Return the person, the contrast of each enlarged organ, and the other lesions with their sites.

    A lesion without a site is left out.
    """
    person, organs = healthy, dict[int, float]()
    for class_id in sorted(RESHAPE.keys() & set(classes)):
        organs[class_id] = draw_contrast(class_id, rng)
        enlarged = RESHAPE[class_id](healthy, propose(class_id, rng), rng)
        part = LEAST_ENLARGEMENT + (1 - LEAST_ENLARGEMENT) * min(1.0, organs[class_id])
        person = _between(person, healthy, enlarged, part)
    scene = rehearse(person)
    planned: list[Planned] = []
    boxes: list[tuple[int, Box]] = []
    for class_id in sorted(class_id for class_id in classes if class_id in DRAW):
        contrast = draw_contrast(class_id, rng)
        for _ in range(TRIES):
            site = propose(class_id, rng, SIZE_LIMITS)
            lesion = Planned(class_id, site, int(rng.integers(2**32)), contrast)
            if class_id not in AT_THE_WALL and not in_lung(scene, site):
                continue
            box = box_around(lesion.draw(scene).extent)
            if box and all(other != class_id or overlap(box, taken) <= MAX_OVERLAP for other, taken in boxes):
                planned.append(lesion)
                boxes.append((class_id, box))
                break
    return person, organs, planned


def _choose(rng: np.random.Generator, *, balanced: bool) -> list[int]:
    """Return the class of each lesion of a phantom: none, or at least one; an organ is enlarged once."""
    if rng.random() >= ABNORMAL_SHARE:
        return []
    if balanced:
        present = rng.permutation(len(FIGURES))[: rng.integers(1, MAX_CLASSES + 1)].tolist()
    else:
        shares = np.array([min(1.0, figures.findings / figures.together) for figures in READER_FIGURES])
        present = np.flatnonzero(rng.random(len(shares)) < shares).tolist()
        present = present or [int(rng.choice(len(shares), p=shares / shares.sum()))]
    more = rng.poisson([READER_FIGURES[class_id].together - 1 for class_id in present])
    return [
        class_id
        for class_id, others in zip(present, more.tolist(), strict=True)
        for _ in range(1 if class_id in RESHAPE else 1 + others)
    ]


def _between(person: Anatomy, healthy: Anatomy, enlarged: Anatomy, part: float) -> Anatomy:
    """Return the person with each value that differs between two anatomies, `part` of the way from one to the other."""
    changed: dict[str, Any] = {}
    for field in fields(Anatomy):
        start, end = getattr(healthy, field.name), getattr(enlarged, field.name)
        if start != end:
            mixed = (1 - part) * np.array(start) + part * np.array(end)
            changed[field.name] = tuple(mixed.tolist()) if mixed.ndim else float(mixed)
    return replace(person, **changed)
