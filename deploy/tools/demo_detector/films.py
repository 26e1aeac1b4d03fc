"""Real films: the normal ones of a COCO document, rendered as in serving, split by patient."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from shared.errors import CarinaError, PermanentError
from shared.imaging.rendition import make_rendition, read_rendition

_RENDITION_PX = 1024
_MAX_IMAGE_PIXELS = 64_000_000


class UnusableFilms(CarinaError):
    """The real films cannot be used; the text gives the reason."""

    code = "unusable_films"


#: The key of a COCO image with the readers' label, and the label of a normal film.
CLASS_KEY, NORMAL = "rsna_class", "Normal"

#: Each lesion's class and its box, xyxy in pixels.
Lesions = Sequence[tuple[int, tuple[float, float, float, float]]]


@dataclass(frozen=True)
class Film:
    """A real film."""

    name: str
    patient: str
    #: The rendition, uint8 [H, W], at most 1024 pixels on its longest side.
    pixels: NDArray[np.uint8]
    #: In pixels of the rendition. A film that is not normal may have unmarked lesions.
    lesions: Lesions = ()


def read_films(document: Path) -> tuple[list[Film], list[Film]]:
    """Read the normal films, and those with boxes, of a COCO document, from the folder `images` beside it.

    Films without a box that are not marked as normal are left out: they may show unmarked findings.
    Raises `UnusableFilms`.
    """
    try:
        content = json.loads(document.read_bytes())
        boxes: dict[int, list[tuple[int, tuple[float, float, float, float]]]] = {}
        for annotation in content["annotations"]:
            left, top, width, height = annotation["bbox"]
            box = (left, top, left + width, top + height)
            boxes.setdefault(annotation["image_id"], []).append((annotation["category_id"], box))
        described = [
            (image["file_name"], str(image["patient"]), image[CLASS_KEY] == NORMAL, boxes.get(image["id"], []))
            for image in content["images"]
        ]
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise UnusableFilms(f"{document} is not a COCO JSON whose images have a patient and `{CLASS_KEY}`.") from exc
    if not any(is_normal for _, _, is_normal, _ in described):
        raise UnusableFilms(f"{document} marks no image as {NORMAL} in `{CLASS_KEY}`.")
    normal: list[Film] = []
    marked: list[Film] = []
    for name, patient, is_normal, lesions in described:
        if is_normal or lesions:
            film = Film(name, patient, render(document.parent / "images" / name), () if is_normal else tuple(lesions))
            (normal if is_normal else marked).append(film)
    return normal, marked


def render(path: Path) -> NDArray[np.uint8]:
    """Return the rendition of a file, uint8 [H, W]; raises `UnusableFilms`."""
    try:
        made = make_rendition(path.read_bytes(), rendition_px=_RENDITION_PX, max_image_pixels=_MAX_IMAGE_PIXELS)
    except (OSError, PermanentError) as exc:
        raise UnusableFilms(f"{path} cannot be rendered: {exc}") from exc
    return read_rendition(made.png)


def hold_out(films: Sequence[Film], share: float, seed: int) -> tuple[list[Film], list[Film]]:
    """Return the films for training, and those of about a share of the patients, which are held out."""
    patients = np.random.default_rng(seed).permutation(sorted({film.patient for film in films}))
    held = set(patients[: max(1, round(share * len(patients)))].tolist())
    return [film for film in films if film.patient not in held], [film for film in films if film.patient in held]


def shrink(pixels: NDArray[np.uint8], side_px: int) -> NDArray[np.uint8]:
    """Return an image at this length of its longest side."""
    scale = side_px / max(pixels.shape)
    return np.asarray(cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8)
