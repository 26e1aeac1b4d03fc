"""The ways in which one image may have come to us: laid, cut, exposed and written on differently."""

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def vary(image: Floats, rng: np.random.Generator, side_px: int) -> Floats:
    """Another taking of an image [H, W] in 0–1, upright and in its own grey sense: [side, side] in 0–1."""
    picture = _lay(image, rng, side_px)
    picture = _expose(picture, rng)
    if rng.random() < 0.3:
        picture = _collimate(picture, rng)
    if rng.random() < 0.5:
        picture = _write_on(picture, rng)
    return _blur_and_grain(picture, rng)


def turn(picture: Floats, rng: np.random.Generator) -> Floats:
    """Lay a square picture on its left or right side, or upside down."""
    return np.ascontiguousarray(np.rot90(picture, int(rng.integers(1, 4))))


def _lay(image: Floats, rng: np.random.Generator, side_px: int) -> Floats:
    """Turn, zoom, stretch, shift and mirror a little; the outside becomes black, white or repeats the edge."""
    height, width = image.shape
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), rng.normal(0, 5), 1.0)
    zoom = np.exp(rng.normal(0.03, 0.13))
    stretch = np.exp(rng.normal(0, 0.07))
    mirror = rng.choice((-1, 1))
    onto = np.array([[mirror * zoom * stretch * side_px / width, 0], [0, zoom / stretch * side_px / height]])
    linear = onto @ matrix[:, :2]
    middle = np.array([0.5, 0.5]) * side_px + rng.normal(0, 0.05, 2) * side_px
    matrix = np.column_stack([linear, middle - linear @ (width / 2, height / 2)])
    border = cv2.BORDER_REPLICATE if rng.random() < 0.4 else cv2.BORDER_CONSTANT
    beyond = rng.choice((0.0, 0.0, 0.05, 1.0))
    moved = cv2.warpAffine(
        image, matrix, (side_px, side_px), flags=cv2.INTER_LINEAR, borderMode=border, borderValue=beyond
    )
    return np.asarray(moved, np.float32)


def _expose(picture: Floats, rng: np.random.Generator) -> Floats:
    """Another window, with ends that saturate now and then, another curve, and now and then equalised tiles."""
    if rng.random() < 0.12:
        equalise = cv2.createCLAHE(rng.uniform(1, 6), (4, 4))
        picture = np.float32(1 / 255) * equalise.apply((255 * picture).astype(np.uint8))
    low, high = np.percentile(picture, (rng.uniform(0, 12), 100 - rng.uniform(0, 12)))
    picture = np.clip((picture - np.float32(low)) / np.float32(max(high - low, 0.05)), 0, 1)
    curved: Floats = np.power(picture, np.float32(np.exp(rng.normal(0, 0.35))))
    return curved


def _collimate(picture: Floats, rng: np.random.Generator) -> Floats:
    """Borders of one grey on some sides."""
    side = len(picture)
    kept = np.zeros((side, side), bool)
    top, left, bottom, right = (int(rng.uniform(0, 0.14) * side * (rng.random() < 0.6)) for _ in range(4))
    kept[top : side - bottom, left : side - right] = True
    grey = np.float32(rng.choice((0.0, 0.0, 0.03, 1.0)))
    return np.asarray(np.where(kept, picture, grey), np.float32)


def _write_on(picture: Floats, rng: np.random.Generator) -> Floats:
    """Letters near an edge, lines and round leads across."""
    side = len(picture)
    drawn = np.zeros((side, side), np.uint8)  # OpenCV 5 writes on nothing else
    for _ in range(rng.integers(1, 3)):
        text = "".join(rng.choice(list("LRAPQ123"), rng.integers(1, 5)))
        place = int(rng.uniform(0.02, 0.9) * side), int(rng.choice((0.08, 0.15, 0.95)) * side)
        cv2.putText(drawn, text, place, cv2.FONT_HERSHEY_PLAIN, rng.uniform(0.4, 0.8) * side / 64, 255, 1, cv2.LINE_AA)
    for _ in range(rng.integers(0, 3)):
        ends = (rng.uniform(0, 1, (4, 2)).cumsum(axis=0) * side / 2).astype(np.int32)
        cv2.polylines(drawn, [ends], isClosed=False, color=int(rng.integers(150, 256)), lineType=cv2.LINE_AA)
    return np.asarray(np.maximum(picture, np.float32(1 / 255) * drawn), np.float32)


def _blur_and_grain(picture: Floats, rng: np.random.Generator) -> Floats:
    if rng.random() < 0.3:
        picture = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.3, 1.2)).astype(np.float32)
    grain = rng.standard_normal(picture.shape, np.float32) * np.float32(rng.exponential(0.015))
    return np.clip(picture + grain, 0, 1)
