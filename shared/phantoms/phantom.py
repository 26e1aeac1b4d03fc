"""Makes a synthetic chest radiograph with lesions at known positions, from a seed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from shared.phantoms.anatomy import Anatomy
from shared.phantoms.canvas import Layer
from shared.phantoms.exposure import Exposure
from shared.phantoms.figures import CLASS_NAMES
from shared.phantoms.lesions import RESHAPE, outline_of
from shared.phantoms.marks import Box, box_around
from shared.phantoms.planting import Planned, choose_classes, plan, reshape
from shared.phantoms.scene import Scene

#: Maximum height at which everything except the noise is drawn; it is smooth enough to be enlarged.
COMPOSE_PX = 1024


@dataclass(frozen=True)
class Lesion:
    """One lesion of a phantom."""

    class_id: int
    class_name: str
    #: The tight box around the drawn lesion, in pixels of the phantom.
    box_xyxy_px: Box
    #: Its visibility: 1 for all lesions of easy phantoms; see `hard`.
    contrast: float = 1.0


@dataclass(frozen=True)
class Phantom:
    """A synthetic chest radiograph."""

    seed: int
    #: float32 [H, W] in 0–1; dense tissue is bright, as in MONOCHROME2.
    pixels: Layer
    lesions: tuple[Lesion, ...]


def make_phantom(
    seed: int, height_px: int = 1024, width_px: int = 860, classes: Sequence[int] | None = None
) -> Phantom:
    """Draw the phantom of a seed; except for the noise, it is the same at any size.

    `classes` has the ids of the classes to add, with one lesion each if there is room; by default, the seed determines
    them.
    """
    choice, body, planting, texture, taking, grain = np.random.default_rng(seed).spawn(6)
    exposure = Exposure.draw(taking)
    if classes is None:
        classes = choose_classes(choice)
    person = reshape(Anatomy.draw(body), classes, planting)
    planned = plan(person, classes, planting)
    organs = dict.fromkeys(sorted(RESHAPE.keys() & set(classes)), 1.0)
    return compose(seed, (height_px, width_px), exposure, person, organs, planned, texture, grain)


def compose(
    seed: int,
    size_px: tuple[int, int],
    exposure: Exposure,
    person: Anatomy,
    organs: Mapping[int, float],
    planned: Sequence[Planned],
    texture: np.random.Generator,
    grain: np.random.Generator,
) -> Phantom:
    """Draw a phantom of (height, width) with planned lesions.

    `organs` has the contrast of each class in `RESHAPE` whose organ the person has enlarged.
    """
    height_px, width_px = size_px
    shrink = max(1.0, height_px / COMPOSE_PX)
    canvas = exposure.canvas(round(height_px / shrink), round(width_px / shrink))
    scene = Scene(canvas, person)
    density, markings = scene.tissue(texture) + scene.bones(), scene.vessels(texture)
    extents = [(class_id, contrast, canvas.fill(outline_of(class_id, person))) for class_id, contrast in organs.items()]
    for lesion in planned:
        mark = lesion.draw(scene)
        if mark.cleared is not None:
            markings *= 1 - mark.cleared
        density += mark.density
        extents.append((lesion.class_id, lesion.contrast, mark.extent))
    bright = exposure.develop(density + markings, canvas)
    if shrink > 1:
        bright = cv2.resize(bright, (width_px, height_px), interpolation=cv2.INTER_CUBIC).astype(np.float32, copy=False)
    scale = (width_px / canvas.width_px, height_px / canvas.height_px)
    lesions = tuple(
        _lesion(class_id, contrast, box, scale) for class_id, contrast, extent in extents if (box := box_around(extent))
    )
    return Phantom(seed, exposure.grain(bright, grain), lesions)


def _lesion(class_id: int, contrast: float, box: Box, scale: tuple[float, float]) -> Lesion:
    x, y = scale
    return Lesion(class_id, CLASS_NAMES[class_id], (box[0] * x, box[1] * y, box[2] * x, box[3] * y), contrast)
