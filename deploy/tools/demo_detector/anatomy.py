"""Finds where the body frame of the phantoms lies in a real film, so that lesions can be drawn into its lungs."""

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from cv2.typing import MatLike
from numpy.typing import NDArray

from shared.phantoms.anatomy import Anatomy
from shared.phantoms.canvas import Canvas, Layer, Points
from shared.phantoms.exposure import Exposure
from shared.phantoms.scene import Scene

#: A template shows the chest from the neck to below the diaphragm, at this many pixels per unit of the body frame.
_SCALE_PX, _TOP, _BOTTOM, _HALF_WIDTH = 160, 0.06, 0.74, 0.36
#: The film is compared at this size.
_SIDE_PX = 160
_PERSONS = 10
#: The search starts from these sizes of the body frame, as shares of the film's longer side.
_STARTS = (1.0, 1.15, 1.3)
#: A fit below this correlation, or with axes that differ by more than this factor, is not used.
MIN_CORRELATION, MAX_STRETCH = 0.8, 1.45


@dataclass(frozen=True)
class Fit:
    """A person like the one in a film, and the place of the body frame in it."""

    anatomy: Anatomy
    #: The affine map from the body frame to pixels of the film, float64 [2, 3].
    body_to_film: NDArray[np.float64]
    #: Of the film and the person's phantom, -1 to 1.
    correlation: float

    def to_film(self, where: Points) -> Points:
        """Map body points [N, 2] to pixels of the film."""
        return where @ self.body_to_film[:, :2].T + self.body_to_film[:, 2]


def fit_anatomy(film: MatLike) -> Fit | None:
    """Fit phantoms without lesions to a film, uint8 [H, W], by an affine map; return the best, None if none is good.

    The map maximises the enhanced correlation coefficient (Evangelidis and Psarakis, 2008, 10.1109/TPAMI.2008.113).
    """
    scale = _SIDE_PX / max(film.shape)
    small = _flatten(cv2.resize(film, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))
    best: Fit | None = None
    for person, template, body_to_template in _templates():
        for start in _STARTS:
            correlation, warp = _align(template, small, start)
            stretch = np.linalg.svd(warp[:, :2], compute_uv=False)
            if correlation < MIN_CORRELATION or stretch[0] > MAX_STRETCH * stretch[1]:
                continue
            if best is None or correlation > best.correlation:
                whole = np.vstack([warp, (0, 0, 1)]) @ np.vstack([body_to_template, (0, 0, 1)])
                best = Fit(person, whole[:2] / scale, correlation)
    return best


def _align(template: Layer, film: Layer, start: float) -> tuple[float, NDArray[np.float64]]:
    """Return the correlation and the affine map [2, 3] from a template to a film. Without a fit, the correlation is 0.

    The search starts with the template in the middle, `start` times as large as if the body frame filled the film.
    """
    size = start * _SIDE_PX / _SCALE_PX
    offset = (np.array(film.shape) - size * np.array(template.shape)) / 2
    guess = np.array([[size, 0, offset[1]], [0, size, offset[0]]])
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 60, 1e-4)
    try:
        correlation, warp = cv2.findTransformECC(template, film, guess.astype(np.float32), cv2.MOTION_AFFINE, criteria)
    except cv2.error:  # the search has diverged
        return 0.0, guess
    return float(correlation), np.asarray(warp, np.float64)


@cache
def _templates() -> list[tuple[Anatomy, Layer, NDArray[np.float64]]]:
    """Draw persons as (anatomy, image, affine map from the body frame to the image)."""
    height, width = round((_BOTTOM - _TOP) * _SCALE_PX), round(2 * _HALF_WIDTH * _SCALE_PX)
    canvas = Canvas(height, width, _SCALE_PX, (width / 2, -_TOP * _SCALE_PX))
    templates = []
    for seed in range(_PERSONS):
        rng = np.random.default_rng(seed)
        person, exposure = Anatomy.draw(rng), Exposure.draw(rng)
        scene = Scene(canvas, person)
        density = scene.tissue(rng) + scene.bones() + scene.vessels(rng)
        bright = exposure.brightness(density)
        templates.append((person, _flatten(np.rint(255 * bright).astype(np.uint8)), canvas.matrix))
    return templates


def _flatten(image: MatLike) -> Layer:
    """Equalise the contrast over an 8-bit image, which makes films of different exposures alike."""
    equalised = cv2.createCLAHE(3.0, (3, 3)).apply(image)
    return np.asarray(cv2.GaussianBlur(equalised, (0, 0), 1.5), np.float32)
