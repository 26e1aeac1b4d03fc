"""Small random changes of an image, so that a detector does not overfit to one exposure and position."""

import cv2
import numpy as np
from numpy.typing import NDArray

from shared.training.config import Augmentation, Range

#: A lesion with a smaller visible share on the canvas is removed.
MIN_VISIBLE = 0.5


def augment(
    image: NDArray[np.uint8],
    boxes_xyxy_px: NDArray[np.float32],
    canvas_px: int,
    augmentation: Augmentation,
    rng: np.random.Generator,
) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.bool_]]:
    """Fit an image [h, w] onto a canvas as in serving, with random changes.

    Boxes [n, 4] are xyxy in pixels of the rendition. Returns the canvas, uint8 [S, S]; the boxes still visible on it,
    float32 [m, 4] xyxy in its pixels; and a mask [n] of these boxes. An augmentation without changes gives the canvas
    of `shared.detector.fitting.fit_to_canvas`. All random values come from `rng`.
    """
    canvas, image_to_canvas = _warp(image, canvas_px, augmentation, rng)
    canvas = _expose(canvas, augmentation, rng)
    cutouts = _draw_cutouts(canvas_px, augmentation, rng)
    for left, top, right, bottom in cutouts:
        canvas[top:bottom, left:right] = 0
    moved = _move(boxes_xyxy_px, image_to_canvas)
    clipped = np.clip(moved, 0, canvas_px)
    whole, seen = _areas(moved), clipped.astype(np.float32)
    kept = (whole > 0) & (_areas(clipped) - _hidden(clipped, cutouts) >= MIN_VISIBLE * whole)
    kept &= (seen[:, 2:] > seen[:, :2]).all(axis=1)  # boxes can lose their area only in float32
    return canvas, seen[kept], kept


# --- the steps of `augment` ------------------------------------------------------------------------------------------


def _warp(
    image: NDArray[np.uint8], canvas_px: int, augmentation: Augmentation, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Return the canvas, and the affine map [2, 3] from image pixels to canvas pixels, both from the top left edge."""
    height, width = image.shape
    mirror = -1.0 if rng.random() < augmentation.flip_probability else 1.0
    angle = np.deg2rad(rng.uniform(-augmentation.rotate_deg, augmentation.rotate_deg))
    shift = canvas_px * rng.uniform(-augmentation.translate, augmentation.translate, size=2)
    # Drawn only if it is used, so that other options give the same images as before there was shear.
    shear = np.tan(np.deg2rad(rng.uniform(-1, 1) * augmentation.shear_deg)) if augmentation.shear_deg else 0.0
    scale, aspect = _draw_factor(augmentation.scale, rng), _draw_factor(augmentation.aspect, rng)
    stretch = scale * np.array([aspect**0.5, aspect**-0.5])  # x, y

    # Areas are averaged for most of the scaling, as in `place`, because the warp alone would alias.
    resized, fitted = _resize(image, canvas_px, stretch)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    centre = fitted / 2 + shift
    size = np.array(resized.shape[::-1])
    linear = turn @ np.array([[1, shear], [0, 1]]) * (fitted * stretch / size * (mirror, 1))
    to_canvas = np.column_stack((linear, centre - linear @ (size / 2)))
    # OpenCV's origin is the centre of the first pixel.
    centred = np.column_stack((linear, to_canvas[:, 2] + linear @ (0.5, 0.5) - 0.5))
    if np.array_equal(centred, np.eye(2, 3)):  # nothing moves: copying is much faster, with the same result
        canvas = np.zeros((canvas_px, canvas_px), np.uint8)
        canvas[: size[1], : size[0]] = resized
    else:
        canvas = np.asarray(cv2.warpAffine(resized, centred, (canvas_px, canvas_px), flags=cv2.INTER_LINEAR), np.uint8)
    to_canvas[:, :2] *= size / (width, height)
    return np.asarray(canvas, np.uint8), to_canvas


def _resize(
    image: NDArray[np.uint8], canvas_px: int, stretch: NDArray[np.float64]
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return the image at about its final size, and the size (x, y) of the fitted image without stretch."""
    height, width = image.shape
    scale = canvas_px / max(height, width)
    fitted = np.array([max(1, round(width * scale)), max(1, round(height * scale))])
    final = np.maximum(np.rint(fitted * stretch), 1).astype(int)
    if final.tolist() == [width, height]:
        return image, fitted
    shrinks = scale * stretch.max() < 1
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (int(final[0]), int(final[1])), interpolation=interpolation), np.uint8), fitted


def _expose(canvas: NDArray[np.uint8], augmentation: Augmentation, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Change gamma, contrast, brightness and noise. Black pixels, such as the border of the canvas, stay black."""
    levels = np.linspace(0, 1, 256) ** _draw_factor(augmentation.gamma, rng)
    levels = (levels - 0.5) * _draw_factor(augmentation.contrast, rng) + 0.5 + rng.uniform(*augmentation.brightness)
    levels[0] = 0
    table = (255 * np.clip(levels, 0, 1)).astype(np.float32)
    grain = np.float32(255 * rng.uniform(0, augmentation.noise))
    if not grain:
        rounded = np.rint(table).astype(np.uint8)
        return canvas if np.array_equal(rounded, np.arange(256)) else np.asarray(cv2.LUT(canvas, rounded), np.uint8)
    exposed = np.take(table, canvas)
    exposed += grain * rng.standard_normal(canvas.shape, dtype=np.float32) * (canvas > 0)
    return np.asarray(np.rint(np.clip(exposed, 0, 255)), np.uint8)


def _draw_cutouts(canvas_px: int, augmentation: Augmentation, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return rectangles [k, 4] xyxy that lie completely on the canvas."""
    count = rng.integers(augmentation.cutouts + 1)
    sides = np.rint(rng.uniform(0, augmentation.cutout_side * canvas_px, size=(count, 2))).astype(np.int64)
    corners = rng.integers(canvas_px - sides + 1)
    return np.concatenate((corners, corners + sides), axis=1)


def _move(boxes_xyxy: NDArray[np.float32], affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the boxes [n, 4] around the mapped content of the boxes; `affine` is [2, 3].

    The content is assumed to be the ellipse that fills the box: lesions are round, and a box around the rotated corners
    would be too large (arXiv:2109.13488).
    """
    boxes = boxes_xyxy.astype(np.float64)
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2 @ affine[:, :2].T + affine[:, 2]
    reach = np.sqrt(((boxes[:, 2:] - boxes[:, :2]) / 2) ** 2 @ (affine[:, :2] ** 2).T)
    return np.concatenate((centres - reach, centres + reach), axis=1)


def _hidden(boxes_xyxy: NDArray[np.float64], cutouts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the area of each box [n] that is cut out; overlapping cutouts count twice."""
    near = np.maximum(boxes_xyxy[:, None, :2], cutouts[None, :, :2])
    far = np.minimum(boxes_xyxy[:, None, 2:], cutouts[None, :, 2:])
    return np.asarray(np.clip(far - near, 0, None).prod(-1).sum(-1))


def _draw_factor(limits: Range, rng: np.random.Generator) -> float:
    return float(np.exp(rng.uniform(*np.log(limits))))


def _areas(boxes_xyxy: NDArray[np.floating]) -> NDArray[np.floating]:
    width, height = (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).T
    return np.asarray(width * height)
