"""Pictures that are no frontal chest, drawn from a seed or cut out of images, one function a kind."""

from collections.abc import Callable, Mapping
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
G = TypeVar("G", bound=np.generic)
#: Draws a picture [side, side] in 0–1.
Draw = Callable[[np.random.Generator, int], Floats]


def blank(rng: np.random.Generator, side_px: int) -> Floats:
    """An exposure of nothing: one grey, that may rise to a side or to the middle, and a frame."""
    down, across = np.mgrid[-1 : 1 : side_px * 1j, -1 : 1 : side_px * 1j]
    slope = rng.normal(0, 0.15, 2) @ np.stack([down, across]).reshape(2, -1)
    bowl = rng.normal(0, 0.15) * (down**2 + across**2)
    picture = rng.uniform(0, 1) + slope.reshape(side_px, side_px) + bowl
    if rng.random() < 0.4:
        inset = int(rng.uniform(0.02, 0.3) * side_px)
        framed = np.full_like(picture, rng.choice((0.0, 1.0)))
        framed[inset : side_px - inset, inset : side_px - inset] = picture[
            inset : side_px - inset, inset : side_px - inset
        ]
        picture = framed
    return np.asarray(np.clip(picture, 0, 1), np.float32)


def noise(rng: np.random.Generator, side_px: int) -> Floats:
    """Grain of one size or of several, as clouds are."""
    picture = np.zeros((side_px, side_px), np.float32)
    fall = rng.uniform(0, 1.6)
    for octave in range(1, 7):
        cells = 2**octave
        grid = rng.standard_normal((cells, cells)).astype(np.float32)
        picture += cv2.resize(grid, (side_px, side_px), interpolation=cv2.INTER_CUBIC) * np.float32(cells**-fall)
    return _stretch(picture)


def limb(rng: np.random.Generator, side_px: int) -> Floats:
    """One or two long bones in their flesh, on air; a joint between them now and then."""
    large = 2 * side_px
    flesh, bones = np.zeros((large, large), np.float32), np.zeros((large, large), np.float32)
    angle = rng.normal(np.pi / 2, 0.35) if rng.random() < 0.7 else rng.uniform(0, np.pi)
    along = np.array([np.cos(angle), np.sin(angle)])
    middle = np.array([0.5, 0.5]) * large + rng.normal(0, 0.08, 2) * large
    width = rng.uniform(0.1, 0.4) * large
    bend = rng.normal(0, 0.25) if rng.random() < 0.5 else 0.0
    halves = (along, -np.array([np.cos(angle + bend), np.sin(angle + bend)]))
    taper = rng.uniform(0.6, 1.1, 2)
    pair = rng.random() < 0.5
    for half, share in zip(halves, taper, strict=True):
        end = middle + half * large
        aside = np.array([-half[1], half[0]])
        wide = np.array([middle + aside * width / 2, end + aside * width * share / 2])
        cv2.fillPoly(flesh, [np.concatenate([wide, (2 * np.array([middle, end]) - wide)[::-1]]).astype(np.int32)], 1.0)
        for offset in (-0.2, 0.2) if pair else (0.0,):
            thick = int(max(2, width * rng.uniform(0.15, 0.3) / (1.5 if pair else 1)))
            shift = aside * width * offset
            start = middle + half * rng.uniform(0.01, 0.05) * large
            cv2.line(bones, (start + shift).astype(int).tolist(), (end + shift).astype(int).tolist(), 1.0, thick)
            cv2.circle(bones, (start + shift).astype(int).tolist(), int(thick * rng.uniform(0.5, 0.9)), 1.0, -1)
    marrow = cv2.GaussianBlur(bones, (0, 0), max(1.0, width * 0.05))
    depth = 0.5 * cv2.GaussianBlur(flesh, (0, 0), width * 0.12) + rng.uniform(0.3, 0.9) * (1.4 * bones - 0.6 * marrow)
    return _shrink(_stretch(depth + 0.02 * rng.standard_normal((large, large))), side_px)


def skull(rng: np.random.Generator, side_px: int) -> Floats:
    """A round bright shell with dark and bright rounds in it: a skull, a joint, a slice across the body."""
    large = 2 * side_px
    depth = np.zeros((large, large), np.float32)
    middle = (np.array([0.5, 0.5]) * large + rng.normal(0, 0.05, 2) * large).astype(int)
    axes = (rng.uniform(0.22, 0.48, 2) * large).astype(int)
    tilt = rng.uniform(0, 180)
    cv2.ellipse(depth, middle.tolist(), axes.tolist(), tilt, 0, 360, rng.uniform(0.3, 0.7), -1)
    cv2.ellipse(depth, middle.tolist(), axes.tolist(), tilt, 0, 360, rng.uniform(0.6, 1.0), int(rng.integers(2, 12)))
    for _ in range(rng.integers(2, 9)):
        place = (middle + rng.normal(0, 0.4, 2) * axes).astype(int)
        radii = (rng.uniform(0.05, 0.35, 2) * axes).astype(int) + 1
        drop = np.zeros_like(depth)
        cv2.ellipse(drop, place.tolist(), radii.tolist(), rng.uniform(0, 180), 0, 360, rng.normal(0, 0.35), -1)
        depth += cv2.GaussianBlur(drop, (0, 0), rng.uniform(0.5, 6))
    return _shrink(_stretch(np.asarray(cv2.GaussianBlur(depth, (0, 0), rng.uniform(0.5, 3)), np.float32)), side_px)


def shapes(rng: np.random.Generator, side_px: int) -> Floats:
    """Rounds, boxes and strokes of all greys over each other: what pictures of rooms and things come down to."""
    large = 2 * side_px
    picture = np.full((large, large), rng.random(), np.float32)
    for _ in range(rng.integers(2, 30)):
        grey = float(rng.random())
        a, b = (rng.uniform(-0.1, 1.1, (2, 2)) * large).astype(int).tolist()
        size = (rng.uniform(0.01, 0.4, 2) * large).astype(int).tolist()
        match rng.integers(4):
            case 0:
                cv2.ellipse(picture, a, size, rng.uniform(0, 180), 0, 360, grey, -1)
            case 1:
                cv2.rectangle(picture, a, b, grey, -1)
            case 2:
                cv2.line(picture, a, b, grey, int(rng.integers(1, large // 8)))
            case _:
                corners = (rng.uniform(-0.1, 1.1, (rng.integers(3, 6), 2)) * large).astype(np.int32)
                cv2.fillPoly(picture, [corners], grey)
    picture = np.asarray(cv2.GaussianBlur(picture, (0, 0), rng.exponential(2) + 0.1), np.float32)
    return _shrink(np.clip(picture + rng.uniform(0, 0.3) * (noise(rng, large) - 0.5), 0, 1), side_px)


def page(rng: np.random.Generator, side_px: int) -> Floats:
    """Lines of text, a table or a check pattern, dark on bright or the other way round."""
    large = 3 * side_px
    picture = np.full((large, large), rng.integers(200, 256), np.uint8)  # OpenCV 5 writes on nothing else
    if rng.random() < 0.25:
        cells = int(rng.integers(2, 16))
        board = np.indices((cells, cells)).sum(axis=0) % 2
        picture = cv2.resize((255 * board).astype(np.uint8), (large, large), interpolation=cv2.INTER_NEAREST)
    for top in range(int(rng.uniform(4, 20)), large, int(rng.uniform(7, 30))):
        if rng.random() < 0.85:
            text = "".join(rng.choice(list("abcdefghij klmno pqr stuvwxyz "), rng.integers(3, 60)))
            left = int(rng.choice((4, 4, 4, rng.uniform(0, large / 2))))
            cv2.putText(
                picture, text, (left, top), cv2.FONT_HERSHEY_SIMPLEX, rng.uniform(0.25, 0.8), 25, 1, cv2.LINE_AA
            )
    return _shrink(np.float32(1 / 255) * (picture if rng.random() < 0.7 else 255 - picture), side_px)


#: Kinds that are drawn from nothing.
DRAWN: Mapping[str, Draw] = {
    "blank": blank,
    "noise": noise,
    "limb": limb,
    "skull": skull,
    "shapes": shapes,
    "page": page,
}


def part(image: NDArray[G], rng: np.random.Generator) -> NDArray[G]:
    """A piece of an image [H, W] that shows too little of the chest: a corner or a strip of it, [h, w]."""
    height, width = image.shape
    share_y, share_x = (
        (rng.uniform(0.2, 0.42, 2)) if rng.random() < 0.7 else rng.permutation([0.2, rng.uniform(0.5, 1)])
    )
    h, w = int(share_y * height), int(share_x * width)
    top, left = rng.integers(0, height - h + 1), rng.integers(0, width - w + 1)
    return image[top : top + h, left : left + w]


def shuffled(image: Floats, rng: np.random.Generator) -> Floats:
    """An image's tiles in another order: its textures without its shape, [H, W]."""
    tiles = int(rng.integers(2, 5))
    height, width = (side // tiles for side in image.shape)
    places = [(row, column) for row in range(tiles) for column in range(tiles)]
    picture = np.empty((height * tiles, width * tiles), np.float32)
    order = rng.permutation(len(places))
    while (order == np.arange(len(places))).any():
        order = rng.permutation(len(places))
    for (row, column), source in zip(places, order, strict=True):
        at, of = places[source]
        tile = image[at * height : (at + 1) * height, of * width : (of + 1) * width]
        picture[row * height : (row + 1) * height, column * width : (column + 1) * width] = tile
    return picture


def _stretch(picture: NDArray[np.floating]) -> Floats:
    low, high = np.percentile(picture, (0.5, 99.5))
    return np.asarray(np.clip((picture - low) / max(high - low, 1e-6), 0, 1), np.float32)


def _shrink(picture: Floats, side_px: int) -> Floats:
    return np.asarray(cv2.resize(picture, (side_px, side_px), interpolation=cv2.INTER_AREA), np.float32)
