"""The training images: phantoms and real films, both with and without lesions, both with and without distractors.

Neither kind of background tells whether there is a lesion, so the detector cannot learn that real films are normal.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from deploy.tools.demo_detector.anatomy import Fit, fit_anatomy
from deploy.tools.demo_detector.blending import blend
from deploy.tools.demo_detector.distractors import add_distractors
from deploy.tools.demo_detector.films import Film, shrink
from shared.phantoms import CLASS_NAMES, make_phantom
from shared.version import RENDITION_VERSION
from trainer.datasets.dataset import Dataset, DatasetImage, parse

#: Seeds of the training phantoms, far from those of the demo, of datasets and of the held-out phantoms.
TRAINING_SEED = 4_000_000
#: Real films are used at this size, which is larger than the detector's canvas.
FILM_PX = 512
_PHANTOM_PX = (512, 1024)
#: The shares of the images: real films with lesions and without, phantoms with lesions; the rest is normal phantoms.
FILMS_WITH_LESIONS, NORMAL_FILMS, PHANTOMS_WITH_LESIONS = 0.32, 0.28, 0.32
#: The share of phantoms with distractors: the images of the demo have none but their marker.
_DISTRACTED_PHANTOMS = 0.5
MAX_LESIONS = 5


def draw_dataset(films: Sequence[Film], count: int, seed: int, folder: Path, on_image: Callable[[], None]) -> Dataset:
    """Draw `count` images into a folder, calling `on_image` after each, and return them as a dataset.

    The folder keeps the dataset's document, so a second call with the same folder only reads it.
    """
    document = folder / "dataset.json"
    if not document.exists():
        folder.mkdir(parents=True, exist_ok=True)
        fitted = [
            (film, pixels, fit_anatomy(pixels)) for film in films if (pixels := shrink(film.pixels, FILM_PX)).any()
        ]
        images, annotations = [], []
        for number, (pixels, lesions, patient) in enumerate(_draw(fitted, count, seed), start=1):
            name = f"{number}.png"
            cv2.imwrite(str(folder / name), pixels)
            images.append(_described(number, name, pixels, patient))
            for class_id, (left, top, right, bottom) in lesions:
                box = [left, top, right - left, bottom - top]
                annotations.append({"image_id": number, "category_id": class_id, "bbox": box})
            on_image()
        content = {
            "info": {"name": "phantoms and real films", "rendition_version": RENDITION_VERSION},
            "categories": [{"id": class_id, "name": name} for class_id, name in enumerate(CLASS_NAMES)],
            "images": images,
            "annotations": annotations,
        }
        document.write_text(json.dumps(content))
    return parse(document.read_bytes())


def reader(folder: Path) -> Callable[[DatasetImage], NDArray[np.uint8]]:
    """Return a function that reads the images of a drawn dataset."""
    return lambda image: np.asarray(cv2.imread(str(folder / image.sha256), cv2.IMREAD_GRAYSCALE), np.uint8)


def choose_classes(rng: np.random.Generator) -> list[int]:
    """Choose one to five classes, all equally frequent."""
    return [int(class_id) for class_id in rng.permutation(len(CLASS_NAMES))[: rng.integers(1, MAX_LESIONS + 1)]]


Drawn = tuple[NDArray[np.uint8], Sequence[tuple[int, tuple[float, float, float, float]]], str | None]


def _draw(films: Sequence[tuple[Film, NDArray[np.uint8], Fit | None]], count: int, seed: int) -> Iterator[Drawn]:
    """Yield images with their lesions, and the patient of the background."""
    usable = [(film, pixels, fit) for film, pixels, fit in films if fit is not None]
    for number in range(count):
        rng = np.random.default_rng((seed, number))
        kind = rng.random()
        if kind < FILMS_WITH_LESIONS:
            film, pixels, fit = usable[int(rng.integers(len(usable)))]
            blended = blend(pixels, fit, choose_classes(rng), rng)
            yield add_distractors(blended.pixels, rng), blended.lesions, film.patient
        elif kind < FILMS_WITH_LESIONS + NORMAL_FILMS:
            film, pixels, _ = films[int(rng.integers(len(films)))]
            yield add_distractors(pixels, rng), (), film.patient
        else:
            with_lesions = kind < FILMS_WITH_LESIONS + NORMAL_FILMS + PHANTOMS_WITH_LESIONS
            height = int(rng.integers(*_PHANTOM_PX))
            classes = choose_classes(rng) if with_lesions else ()
            phantom = make_phantom(TRAINING_SEED + seed * 100_000 + number, height, round(height * 0.84), classes)
            pixels = shrink(np.rint(255 * phantom.pixels).astype(np.uint8), FILM_PX)
            scale = FILM_PX / height
            lesions = []
            for lesion in phantom.lesions:
                left, top, right, bottom = (scale * edge for edge in lesion.box_xyxy_px)
                lesions.append((lesion.class_id, (left, top, right, bottom)))
            yield add_distractors(pixels, rng) if rng.random() < _DISTRACTED_PHANTOMS else pixels, lesions, None


def _described(number: int, name: str, pixels: NDArray[np.uint8], patient: str | None) -> dict[str, Any]:
    height, width = pixels.shape
    return {
        "id": number,
        "sha256": name,
        "rendition_sha256": hashlib.sha256(pixels.tobytes()).hexdigest(),
        "height": height,
        "width": width,
        "rendition_height": height,
        "rendition_width": width,
        "patient": patient,
        "split": "train",
    }
