"""Phantoms as a training set: drawn once, kept as the 8-bit renditions that serving would make of them."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from shared.phantoms import CLASS_NAMES, make_phantom

FILM_HEIGHT_PX, FILM_WIDTH_PX = 1024, 860
#: The share of training films without a lesion, and the most classes on the others.
NORMAL_SHARE = 0.12
MOST_CLASSES = 5


@dataclass(frozen=True)
class PhantomSet:
    """Films with their lesions, in the order of `seeds`."""

    seeds: Sequence[int]
    #: uint8 [N, H, W], mapped from disk
    films: NDArray[np.uint8]
    #: int64 [n] of each film, as indices of `CLASS_NAMES`
    classes: list[NDArray[np.int64]]
    #: float32 [n, 4] of each film, in film pixels
    boxes_xyxy_px: list[NDArray[np.float32]]

    def __len__(self) -> int:
        return len(self.seeds)


def natural(seed: int) -> None:
    """Leave the classes of a film to its seed."""


def balanced(seed: int) -> tuple[int, ...]:
    """Choose a film's classes evenly, so that the rare ones are learnt as well as the common ones."""
    rng = np.random.default_rng((seed, 0xBA1A))
    if rng.random() < NORMAL_SHARE:
        return ()
    return tuple(rng.permutation(len(CLASS_NAMES))[: rng.integers(1, MOST_CLASSES + 1)].tolist())


def to_rendition(pixels: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Give the rendition of a phantom, uint8 [H, W]; the same as by way of its DICOM file, to a grey level or two."""
    return np.rint(pixels * 255).astype(np.uint8)


def load(folder: Path, seeds: range, choose: Callable[[int], tuple[int, ...] | None], processes: int) -> PhantomSet:
    """Return the phantoms of these seeds, drawing them into `folder` where that has not been done yet."""
    stem = f"{choose.__name__}-{seeds.start}-{seeds.stop}"
    films_file, lesions_file = folder / f"{stem}.npy", folder / f"{stem}.json"
    if not lesions_file.exists():  # It is written last.
        folder.mkdir(parents=True, exist_ok=True)
        shape = (len(seeds), FILM_HEIGHT_PX, FILM_WIDTH_PX)
        films = np.lib.format.open_memmap(films_file, mode="w+", dtype=np.uint8, shape=shape)
        lesions = []
        with get_context("spawn").Pool(processes, initializer=cv2.setNumThreads, initargs=(1,)) as pool:
            jobs = ((seed, choose(seed)) for seed in seeds)
            for row, (film, found) in enumerate(
                track(pool.imap(_draw, jobs, chunksize=4), f"drawing {stem}", len(seeds))
            ):
                films[row] = film
                lesions.append(found)
        films.flush()
        lesions_file.write_text(json.dumps(lesions))
    found = json.loads(lesions_file.read_text())
    return PhantomSet(
        seeds,
        np.load(films_file, mmap_mode="r"),
        [np.array([class_id for class_id, _ in film], np.int64) for film in found],
        [np.array([box for _, box in film], np.float32).reshape(-1, 4) for film in found],
    )


def _draw(job: tuple[int, tuple[int, ...] | None]) -> tuple[NDArray[np.uint8], list[tuple[int, tuple[float, ...]]]]:
    seed, classes = job
    phantom = make_phantom(seed, FILM_HEIGHT_PX, FILM_WIDTH_PX, classes)
    return to_rendition(phantom.pixels), [(lesion.class_id, lesion.box_xyxy_px) for lesion in phantom.lesions]
