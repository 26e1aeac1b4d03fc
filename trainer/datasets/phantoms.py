"""Synthetic images as a dataset: drawn into a folder by several processes, then imported as any others."""

import os
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context, parent_process
from pathlib import Path

import cv2
import numpy as np

from shared.detector.card import Category
from shared.phantoms import CLASS_NAMES, make_phantom
from shared.phantoms.hard import expected_lesions, make_hard_phantom
from shared.phantoms.readers import READERS, read_phantom
from shared.training.dataset_source import PhantomsSource
from trainer.datasets.annotations import AnnotatedImage, Annotations, Box

#: Different from the seeds of the demo, and far enough apart that datasets of two seeds share no image.
FIRST_SEED, SEEDS_APART = 1_000_000_000, 100_000
IMAGE_HEIGHT_PX, IMAGE_WIDTH_PX = 1024, 860
#: For balanced datasets: the share of images without a lesion, and the maximum number of classes in the others.
NORMAL_SHARE = 0.12
MAX_CLASSES = 5


def draw_images(source: PhantomsSource, folder: Path, on_image: Callable[[], None]) -> Annotations:
    """Draw the images as 8-bit PNG files into a folder, call `on_image` after each, and return their annotations."""
    first = FIRST_SEED + source.seed * SEEDS_APART
    images = []
    processes = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with ProcessPoolExecutor(processes, get_context("spawn"), _begin) as pool:
        drawn = [pool.submit(_draw, seed, source, folder) for seed in range(first, first + source.films)]
        for future in as_completed(drawn):
            images.append(future.result())
            on_image()
    categories = tuple(Category(id=class_id, name=name) for class_id, name in enumerate(CLASS_NAMES))
    return Annotations(categories, tuple(images), {})


def choose_evenly(seed: int) -> tuple[int, ...]:
    """Return the classes of an image, chosen so that all classes are equally frequent."""
    rng = np.random.default_rng((seed, 0xBA1A))
    if rng.random() < NORMAL_SHARE:
        return ()
    return tuple(rng.permutation(len(CLASS_NAMES))[: rng.integers(1, MAX_CLASSES + 1)].tolist())


def _begin() -> None:
    """Set up a drawing process: one thread, and an exit when its parent process exits for any reason."""
    cv2.setNumThreads(1)
    parent = parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()


def _draw(seed: int, source: PhantomsSource, folder: Path) -> AnnotatedImage:
    if source.hard:
        phantom = make_hard_phantom(seed, IMAGE_HEIGHT_PX, IMAGE_WIDTH_PX, balanced=source.balanced)
    else:
        phantom = make_phantom(seed, IMAGE_HEIGHT_PX, IMAGE_WIDTH_PX, choose_evenly(seed) if source.balanced else None)
    # The rendition of a phantom: equal to that of its DICOM file within two grey levels.
    pixels = np.rint(255 * phantom.pixels).astype(np.uint8)
    if np.random.default_rng((seed, 0x4E6)).random() < source.negative_share:
        pixels = 255 - pixels
    name = f"phantom-{seed}.png"
    cv2.imwrite(str(folder / name), pixels)
    if source.has_readers:
        drawn = read_phantom(phantom, expected_lesions(balanced=source.balanced), np.random.default_rng((seed, 0x4EAD)))
        boxes = [Box(class_id, xyxy_px, (reader,)) for reader, own in drawn.items() for class_id, xyxy_px in own]
    else:
        boxes = []
        for lesion in phantom.lesions:
            left, top, right, bottom = map(float, lesion.box_xyxy_px)
            boxes.append(Box(lesion.class_id, (left, top, right, bottom), ()))
    readers = READERS if source.has_readers else ()
    return AnnotatedImage(name, tuple(boxes), readers, height_px=IMAGE_HEIGHT_PX, width_px=IMAGE_WIDTH_PX)
