"""Draws the lesions of phantoms into real films: their density is added to that of the film."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from deploy.tools.demo_detector.anatomy import Fit
from shared.phantoms.canvas import Canvas, Layer
from shared.phantoms.exposure import Exposure
from shared.phantoms.lesions import RESHAPE, outline_of
from shared.phantoms.marks import Box, box_around
from shared.phantoms.planting import plan, reshape
from shared.phantoms.scene import Scene

#: Factor on the density of a lesion, drawn on a logarithmic scale for each lesion.
CONTRAST = (0.7, 1.4)
#: The response of a film is unknown, and drawn from these (see `Exposure`).
_GAIN, _GAMMA, _FOG = (1.1, 1.6), (0.95, 1.35), 0.02
#: The part of the body frame in which lesions are drawn: half its width, and its height.
_HALF_WIDTH, _HEIGHT = 0.46, 0.8
#: The blur that removes vessels from a region without lung markings, in body units.
_CLEARING = 0.02


@dataclass(frozen=True)
class Blended:
    """A film with lesions."""

    #: uint8 [H, W].
    pixels: NDArray[np.uint8]
    #: Each lesion's class, and its tight box in pixels of the film.
    lesions: tuple[tuple[int, Box], ...]


def blend(film: NDArray[np.uint8], fit: Fit, classes: Sequence[int], rng: np.random.Generator) -> Blended:
    """Draw a lesion of each class into a film, uint8 [H, W], if there is room for it.

    The film's grey levels are converted to density by the phantoms' model of an exposure, and back after the lesions
    have been added. Enlarged organs get the density of the organ that is in the film.
    """
    exposure = _draw_exposure(rng)
    bright = np.multiply(film, np.float32(1 / 255), dtype=np.float32)
    density = exposure.density(bright)
    scale = float(np.sqrt(np.linalg.det(fit.body_to_film[:, :2])))
    canvas = Canvas(round(_HEIGHT * scale), round(2 * _HALF_WIDTH * scale), scale, (_HALF_WIDTH * scale, 0.0))
    person = reshape(fit.anatomy, classes, rng)
    scene = Scene(canvas, person)
    changed, extents = density.copy(), []

    def onto_film(layer: Layer) -> Layer:
        to_film = np.vstack([fit.body_to_film, (0, 0, 1)]) @ np.linalg.inv(np.vstack([canvas.matrix, (0, 0, 1)]))
        height, width = film.shape
        return np.asarray(cv2.warpAffine(layer, to_film[:2], (width, height), flags=cv2.INTER_LINEAR), np.float32)

    for class_id in sorted(RESHAPE.keys() & set(classes)):
        present = onto_film(canvas.fill(outline_of(class_id, fit.anatomy)))
        organ = onto_film(canvas.fill(outline_of(class_id, person)))
        level = np.float32(np.median(density[present > 0.5])) if (present > 0.5).any() else np.float32(1)
        smooth = cv2.GaussianBlur(density, (0, 0), 0.01 * scale)
        changed += cv2.GaussianBlur(organ, (0, 0), 0.004 * scale) * np.maximum(level - smooth, 0)
        extents.append((class_id, organ))
    for lesion in plan(person, classes, rng):
        mark = lesion.draw(scene)
        if mark.cleared is not None:
            cleared = onto_film(mark.cleared)
            changed += cleared * (cv2.GaussianBlur(changed, (0, 0), _CLEARING * scale) - changed)
        changed += np.float32(np.exp(rng.uniform(*np.log(CONTRAST)))) * onto_film(mark.density)
        extents.append((lesion.class_id, onto_film(mark.extent)))
    shown = bright + exposure.brightness(changed) - exposure.brightness(density)
    pixels = np.rint(255 * np.clip(shown, 0, 1)).astype(np.uint8)
    return Blended(pixels, tuple((class_id, box) for class_id, extent in extents if (box := box_around(extent))))


def _draw_exposure(rng: np.random.Generator) -> Exposure:
    return replace(Exposure.draw(rng), gain=rng.uniform(*_GAIN), gamma=rng.uniform(*_GAMMA), fog=_FOG)
