"""Pictures of the worst misses and false positives, with true and detected boxes, for the report."""

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trainer.evaluation.flat import Flat, Ints, Reals
from trainer.evaluation.material import EvaluationSet
from trainer.evaluation.worst import Example

#: Returns the rendition of an image, uint8 [h, w], at any scale of the original.
ReadRendition = Callable[[int], NDArray[np.uint8]]

#: Longer side of a picture: large enough to show a nodule, small enough for forty pictures in one file.
LONGEST_PX = 512
MAX_DETECTIONS = 8


@dataclass(frozen=True)
class PictureBox:
    """A box in pixels of the picture."""

    x: float
    y: float
    width: float
    height: float
    text: str
    detected: bool
    #: Whether the picture is an example of this box.
    is_subject: bool


@dataclass(frozen=True)
class Picture:
    """An image as a JPEG data URI, with the boxes drawn on it."""

    image_id: int
    data_uri: str
    width_px: int
    height_px: int
    boxes: tuple[PictureBox, ...]
    #: One sentence that describes the picture; also its alternative text.
    caption: str


def take_pictures(
    material: EvaluationSet, examples: Sequence[Example], read: ReadRendition, threshold: float, *, missed: bool
) -> list[Picture]:
    """Draw each example on its image, with all true boxes and the best detections above the threshold.

    `missed` tells whether the examples are missed true boxes or false positives. Raises `KeyError` if the size of an
    image is unknown.
    """
    return [_take(material, example, read, threshold, missed=missed) for example in examples]


def _take(material: EvaluationSet, example: Example, read: ReadRendition, threshold: float, *, missed: bool) -> Picture:
    flat, image_id = material.flat, material.ordered_ids[example.image]
    picture = _shrink(read(image_id))
    original_width, original_height = material.sizes_px[image_id]
    scale = np.array([picture.width / original_width, picture.height / original_height] * 2)
    names = [category.name for category in material.categories]
    true = np.flatnonzero(flat.true_image_of == example.image)
    shown = _surest(flat, example, threshold)
    boxes = [
        _box(flat.boxes_xyxy[n] * scale, f"{names[flat.class_of[n]]} {flat.scores[n]:.2f}", detected=True)
        for n in reversed(shown)
    ] + [_box(flat.true_boxes_xyxy[n] * scale, names[flat.true_class_of[n]], detected=False) for n in true]
    subject_name = names[example.category] if missed or example.score is None else _scored(names, example)
    subject = _box(np.array(example.box_xyxy) * scale, subject_name, detected=not missed, is_subject=True)
    others = [box for box in boxes if _place(box) != _place(subject) or box.detected != subject.detected]
    caption = _describe(names[example.category], example.score, len(true), len(shown), missed=missed)
    return Picture(image_id, _to_data_uri(picture), picture.width, picture.height, (*others, subject), caption)


def _surest(flat: Flat, example: Example, threshold: float) -> list[int]:
    mine: Ints = np.flatnonzero((flat.image_of == example.image) & (flat.scores >= threshold))
    chosen: list[int] = mine[:MAX_DETECTIONS].tolist()
    return chosen


def _scored(names: Sequence[str], example: Example) -> str:
    return f"{names[example.category]} {example.score:.2f}"


def _describe(name: str, score: float | None, true: int, shown: int, *, missed: bool) -> str:
    if not missed:
        subject = f"{name}, detected with score {score:.3f}, agrees with no true box of its class."
    elif score is None:
        subject = f"{name}, found by no detection."
    else:
        subject = f"{name}, found only with score {score:.3f}."
    return f"{subject} True boxes on the image: {true}; detections shown: {shown}."


def _box(xyxy: Reals, text: str, *, detected: bool, is_subject: bool = False) -> PictureBox:
    left, top, right, bottom = xyxy.tolist()
    return PictureBox(left, top, right - left, bottom - top, text, detected, is_subject)


def _place(box: PictureBox) -> tuple[float, float, float, float]:
    return box.x, box.y, box.width, box.height


def _shrink(rendition: NDArray[np.uint8]) -> Image.Image:
    picture = Image.fromarray(rendition)
    picture.thumbnail((LONGEST_PX, LONGEST_PX), Image.Resampling.LANCZOS)
    return picture


def _to_data_uri(picture: Image.Image) -> str:
    buffer = BytesIO()
    picture.save(buffer, "JPEG", quality=80, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
