"""Small changes to a film, so that the detector does not learn one exposure and one place by heart."""

import cv2
import numpy as np
from numpy.typing import NDArray

#: How far each axis is stretched, as a factor of the fit onto the canvas, and how far exposure may stray.
STRETCH = (0.86, 1.06)
GAMMA = (0.75, 1.33)
CONTRAST = (0.8, 1.2)
BRIGHTNESS = (-0.1, 0.1)
MOST_NOISE = 0.02
#: A lesion of which less than this share is left on the canvas is no longer one.
LEAST_VISIBLE = 0.5


def place_at_random(
    film: NDArray[np.uint8],
    boxes_xyxy_px: NDArray[np.float32],
    canvas_px: int,
    crop_px: int,
    rng: np.random.Generator,
) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.bool_]]:
    """Stretch a film [h, w] about to the size it has on the canvas, and cut a square of `crop_px` out at random.

    Returns the square, uint8 [crop, crop], the film's boxes in it, float32 [n, 4] in its pixels, and which of them are
    still to be seen, bool [n].
    """
    height, width = film.shape
    scale = canvas_px / max(height, width) * rng.uniform(*STRETCH, size=2) * rng.uniform(0.95, 1.0)
    fitted = np.maximum(np.rint(scale * (width, height)), 1).astype(int)  # x, y
    fitted_film = cv2.resize(film, (int(fitted[0]), int(fitted[1])), interpolation=cv2.INTER_AREA)
    room = crop_px - fitted
    shift = rng.integers(np.minimum(room, 0), np.maximum(room, 0) + 1)  # x, y
    from_x, from_y = np.maximum(-shift, 0)
    to_x, to_y = np.maximum(shift, 0)
    part = fitted_film[from_y : from_y + crop_px - to_y, from_x : from_x + crop_px - to_x]
    crop = np.zeros((crop_px, crop_px), np.uint8)
    crop[to_y : to_y + part.shape[0], to_x : to_x + part.shape[1]] = part

    moved = boxes_xyxy_px * np.tile(fitted / (width, height), 2) + np.tile(shift, 2)
    clipped = np.clip(moved, 0, crop_px).astype(np.float32)
    visible = _areas(clipped) >= LEAST_VISIBLE * _areas(moved)
    return crop, clipped, visible


def expose_at_random(canvas: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Change gamma, contrast, brightness and grain of a canvas [S, S]; what is black stays black."""
    levels = np.linspace(0, 1, 256) ** np.exp(rng.uniform(*np.log(GAMMA)))
    levels = (levels - 0.5) * rng.uniform(*CONTRAST) + 0.5 + rng.uniform(*BRIGHTNESS)
    levels[0] = 0
    exposed = np.take((255 * np.clip(levels, 0, 1)).astype(np.float32), canvas)
    noise = rng.standard_normal(canvas.shape, dtype=np.float32) * np.float32(255 * rng.uniform(0, MOST_NOISE))
    shown: NDArray[np.uint8] = np.clip(exposed + noise * (canvas > 0), 0, 255).astype(np.uint8)
    return shown


def _areas(boxes_xyxy: NDArray[np.float32]) -> NDArray[np.float32]:
    width, height = (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).T
    return np.asarray(width * height)
