"""A synthetic chest film with lesions at known places, from a seed."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from shared.phantoms.anatomy import Anatomy
from shared.phantoms.canvas import Layer
from shared.phantoms.figures import CLASS_NAMES
from shared.phantoms.film import Exposure
from shared.phantoms.lesions import RESHAPE, outline_of
from shared.phantoms.marks import Box, box_around
from shared.phantoms.planting import choose_classes, plan, reshape
from shared.phantoms.scene import Scene

#: Everything but the grain is smooth enough to be drawn at this height at most, and enlarged.
COMPOSE_PX = 1024


@dataclass(frozen=True)
class Lesion:
    """One planted lesion."""

    class_id: int
    class_name: str
    #: The tight box of what was drawn, in the film's pixels.
    box_xyxy_px: Box


@dataclass(frozen=True)
class Phantom:
    """A synthetic film."""

    seed: int
    #: float32 [H, W] in 0–1, bright where dense (the sense of MONOCHROME2).
    pixels: Layer
    lesions: tuple[Lesion, ...]


def make_phantom(
    seed: int, height_px: int = 1024, width_px: int = 860, classes: Sequence[int] | None = None
) -> Phantom:
    """Draw the film of a seed; the same at any size, but for its grain.

    `classes` names the classes to plant, one lesion each as far as there is room; by default the seed chooses them.
    """
    choice, body, planting, texture, taking, grain = np.random.default_rng(seed).spawn(6)
    exposure = Exposure.draw(taking)
    if classes is None:
        classes = choose_classes(choice)
    person = reshape(Anatomy.draw(body), classes, planting)
    planned = plan(person, classes, planting)

    shrink = max(1.0, height_px / COMPOSE_PX)
    canvas = exposure.canvas(round(height_px / shrink), round(width_px / shrink))
    scene = Scene(canvas, person)
    density, markings = scene.tissue(texture) + scene.bones(), scene.vessels(texture)
    extents = [
        (class_id, canvas.fill(outline_of(class_id, person))) for class_id in sorted(RESHAPE.keys() & set(classes))
    ]
    for lesion in planned:
        mark = lesion.draw(scene)
        if mark.cleared is not None:
            markings *= 1 - mark.cleared
        density += mark.density
        extents.append((lesion.class_id, mark.extent))
    bright = exposure.develop(density + markings, canvas)
    if shrink > 1:
        bright = cv2.resize(bright, (width_px, height_px), interpolation=cv2.INTER_CUBIC).astype(np.float32, copy=False)
    scale = (width_px / canvas.width_px, height_px / canvas.height_px)
    lesions = tuple(_lesion(class_id, box, scale) for class_id, extent in extents if (box := box_around(extent)))
    return Phantom(seed, exposure.grain(bright, grain), lesions)


def _lesion(class_id: int, box: Box, scale: tuple[float, float]) -> Lesion:
    x, y = scale
    return Lesion(class_id, CLASS_NAMES[class_id], (box[0] * x, box[1] * y, box[2] * x, box[3] * y))
