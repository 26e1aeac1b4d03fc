"""Things on films that are no lesion: markers and text, lines and leads, devices, and the collimator's edges."""

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from shared.phantoms.canvas import Layer, spline

Image = NDArray[np.uint8]
#: Draws one thing on an image, uint8 [H, W].
Distract = Callable[[Image, np.random.Generator], Image]

_FONTS = (
    *(cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_COMPLEX),
    *(cv2.FONT_HERSHEY_TRIPLEX, cv2.FONT_HERSHEY_PLAIN),
)
_WORDS = ("PORTABLE", "AP", "PA", "ERECT", "SUPINE", "SEMI", "UPRIGHT", "AP ERECT", "MOBILE", "LEFT", "RIGHT", "CXR")


def add_distractors(image: Image, rng: np.random.Generator) -> Image:
    """Return the image, uint8 [H, W], with some distractors drawn on it; often there are none."""
    picture = image.copy()
    for draw, probability in DISTRACTORS:
        while rng.random() < probability:
            picture = draw(picture, rng)
            probability *= 0.4
    return picture


def marker(image: Image, rng: np.random.Generator) -> Image:
    """A side marker: L or R, often with initials, in a frame, turned or mirrored, anywhere near an edge."""
    text = str(rng.choice(("L", "R")))
    if rng.random() < 0.35:
        text = "".join(rng.choice(list("LRABCDHJKMPST123"), rng.integers(1, 4)))
    return _write(image, text, rng, size=rng.uniform(0.03, 0.09), framed=rng.random() < 0.3)


def text(image: Image, rng: np.random.Generator) -> Image:
    """A word, a time or a number."""
    words = str(rng.choice(_WORDS))
    if rng.random() < 0.5:
        words = "".join(rng.choice(list("0123456789:./- "), rng.integers(3, 12)))
    return _write(image, words, rng, size=rng.uniform(0.012, 0.03), framed=False)


def line(image: Image, rng: np.random.Generator) -> Image:
    """A catheter, tube or wire: a smooth line over a part of the image."""
    height, width = image.shape
    count = int(rng.integers(3, 6))
    start = rng.uniform((0.1, -0.05), (0.9, 0.6)) * (width, height)
    steps = rng.normal(0, 0.07, (count, 2))
    steps += (rng.normal(0, 0.06), rng.uniform(0.02, 0.2))
    curve = spline(start + np.concatenate([[[0.0, 0.0]], np.cumsum(steps, axis=0)]) * (width, height))
    mask = np.zeros((height, width), np.uint8)
    thickness = max(1, round(rng.uniform(0.0015, 0.008) * height))
    cv2.polylines(mask, [np.round(curve * 16).astype(np.int32)], False, 255, thickness, cv2.LINE_AA, 4)
    if thickness > 3 and rng.random() < 0.5:  # a tube shows its wall
        cv2.polylines(mask, [np.round(curve * 16).astype(np.int32)], False, 90, thickness - 2, cv2.LINE_AA, 4)
    return _lighten(image, mask, rng.uniform(0.15, 0.9), rng)


def lead(image: Image, rng: np.random.Generator) -> Image:
    """An electrode or a snap: a small disc or ring, often with a wire."""
    height, width = image.shape
    at = rng.uniform((0.1, 0.1), (0.9, 0.95)) * (width, height)
    radius = rng.uniform(0.006, 0.024) * height
    mask = np.zeros((height, width), np.uint8)
    place = (int(at[0]), int(at[1]))
    if rng.random() < 0.5:
        cv2.circle(mask, place, max(1, round(radius)), 255, -1, cv2.LINE_AA)
        if rng.random() < 0.5:
            cv2.circle(mask, place, max(1, round(radius * rng.uniform(0.3, 0.6))), 60, -1, cv2.LINE_AA)
    else:
        cv2.circle(mask, place, max(1, round(radius)), 255, max(1, round(radius * rng.uniform(0.2, 0.5))), cv2.LINE_AA)
    if rng.random() < 0.6:
        end = at + rng.normal(0, 0.3, 2) * (width, height)
        middle = (at + end) / 2 + rng.normal(0, 0.06, 2) * (width, height)
        curve = spline(np.stack([at, middle, end]))
        cv2.polylines(mask, [np.round(curve * 16).astype(np.int32)], False, 200, 1, cv2.LINE_AA, 4)
    return _lighten(image, mask, rng.uniform(0.4, 1.0), rng)


def pacemaker(image: Image, rng: np.random.Generator) -> Image:
    """A device under the skin near a shoulder, with one or two leads to the heart."""
    height, width = image.shape
    side = rng.choice((-1, 1))
    at = np.array([0.5 + side * rng.uniform(0.22, 0.36), rng.uniform(0.16, 0.34)]) * (width, height)
    mask = np.zeros((height, width), np.uint8)
    axes = (rng.uniform(0.03, 0.055, 2) * height).astype(int)
    cv2.ellipse(mask, at.astype(int).tolist(), axes.tolist(), rng.uniform(0, 180), 0, 360, 255, -1, cv2.LINE_AA)
    for _ in range(int(rng.integers(1, 3))):
        end = np.array([0.5 + rng.normal(0.03, 0.06), rng.uniform(0.5, 0.72)]) * (width, height)
        bend = np.array([0.5 + side * 0.06, rng.uniform(0.2, 0.3)]) * (width, height)
        curve = spline(np.stack([at, bend, bend * (1, 1.3), end]))
        thickness = max(1, round(0.003 * height))
        cv2.polylines(mask, [np.round(curve * 16).astype(np.int32)], False, 220, thickness, cv2.LINE_AA, 4)
    return _lighten(image, mask, rng.uniform(0.5, 1.0), rng)


def hardware(image: Image, rng: np.random.Generator) -> Image:
    """Clips, sternal wires, buttons or the teeth of a zip: small bright things in a row."""
    height, width = image.shape
    at = rng.uniform((0.15, 0.1), (0.85, 0.9)) * (width, height)
    if rng.random() < 0.5:
        at[0] = width * rng.normal(0.5, 0.02)
    step = np.array([rng.normal(0, 0.01), rng.uniform(0.03, 0.09)]) * height
    size = rng.uniform(0.005, 0.016) * height
    mask = np.zeros((height, width), np.uint8)
    for number in range(int(rng.integers(1, 6))):
        x, y = at + number * step + rng.normal(0, 0.004, 2) * height
        turn = rng.uniform(0, 180)
        ring = 1 if rng.random() < 0.6 else -1
        axes = (max(1, round(size)), max(1, round(size * rng.uniform(0.15, 1))))
        cv2.ellipse(mask, (int(x), int(y)), axes, turn, 0, 360, 255, ring, cv2.LINE_AA)
    return _lighten(image, mask, rng.uniform(0.5, 1.0), rng)


def collimation(image: Image, rng: np.random.Generator) -> Image:
    """A dark or white border on some sides, a little turned."""
    height, width = image.shape
    inset = rng.uniform(0, 0.06, 4) * (rng.random(4) < 0.6)
    left, top, right, bottom = inset * (width, height, width, height)
    box = ((left + width - right) / 2, (top + height - bottom) / 2)
    corners = cv2.boxPoints((box, (width - left - right, height - top - bottom), rng.normal(0, 0.8)))
    opening = np.zeros((height, width), np.uint8)
    cv2.fillPoly(opening, [corners.astype(np.int32)], 1)
    grey = np.uint8(rng.choice((0, 0, 8, 25, 250)))
    return np.asarray(np.where(opening > 0, image, grey), np.uint8)


#: Each with the probability of the first one on an image; of every further one it is 0.4 times that of the last.
DISTRACTORS: tuple[tuple[Distract, float], ...] = (
    (collimation, 0.15),
    (line, 0.3),
    (lead, 0.3),
    (hardware, 0.15),
    (pacemaker, 0.06),
    (text, 0.25),
    (marker, 0.5),
)


def _write(image: Image, words: str, rng: np.random.Generator, *, size: float, framed: bool) -> Image:
    """Write words whose letters are `size` of the image's height, mostly near an edge."""
    height, width = image.shape
    font = int(rng.choice(_FONTS))
    scale = size * height / 22
    thickness = max(1, round(scale * rng.uniform(1, 3)))
    (wide, high), _ = cv2.getTextSize(words, font, scale, thickness)
    pad = thickness + 3
    label = np.zeros((high + 2 * pad, wide + 2 * pad), np.uint8)
    cv2.putText(label, words, (pad, pad + high), font, scale, 255, thickness, cv2.LINE_AA)
    if framed:
        cv2.rectangle(label, (0, 0), (label.shape[1] - 1, label.shape[0] - 1), 255, max(1, thickness // 2))
    if rng.random() < 0.2:
        label = label[:, ::-1]
    at = rng.uniform(0.02, 0.98, 2)
    if rng.random() < 0.85:  # near an edge
        at[int(rng.integers(2))] = rng.choice((rng.uniform(0.01, 0.13), rng.uniform(0.87, 0.99)))
    turned = cv2.getRotationMatrix2D((label.shape[1] / 2, label.shape[0] / 2), float(_draw_turn(rng)), 1.0)
    offset = at * (width, height) - np.array(label.shape[::-1]) / 2
    turned = np.column_stack([turned[:, :2], turned[:, 2] + offset])
    mask = cv2.warpAffine(np.ascontiguousarray(label), turned, (width, height), flags=cv2.INTER_LINEAR)
    if rng.random() < 0.12:  # dark letters
        dark = np.multiply(mask, np.float32(rng.uniform(0.5, 1) / 255), dtype=np.float32)
        return np.asarray(np.rint(image * (1 - dark)), np.uint8)
    return _lighten(image, np.asarray(mask, np.uint8), rng.uniform(0.5, 1.0), rng)


def _draw_turn(rng: np.random.Generator) -> float:
    return float(rng.choice((0.0, 0.0, 0.0, 90.0, -90.0, rng.uniform(-45, 45))))


def _lighten(image: Image, mask: Image, strength: float, rng: np.random.Generator) -> Image:
    """Move the image towards white where the mask, uint8 [H, W], is; with the sharpness of the image."""
    soft: Layer = cv2.GaussianBlur(mask, (0, 0), rng.uniform(0.3, 1.2)).astype(np.float32)
    share = np.float32(strength / 255) * soft
    return np.rint(image + share * (np.float32(rng.uniform(225, 255)) - image)).clip(0, 255).astype(np.uint8)
