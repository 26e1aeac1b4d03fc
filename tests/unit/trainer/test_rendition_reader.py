"""Renditions are fetched once, kept within bounds, and never taken from a damaged file."""

import hashlib
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from shared.errors import ObjectMissing
from shared.imaging.rendition import _PNG as PNG
from shared.object_store import rendition_key
from shared.phantoms import make_phantom
from tests.tiny_images import tiny_dataset
from tests.waiting import wait_for
from trainer.datasets.dataset import DatasetImage
from trainer.rendition_reader import DatasetImageMissing, RenditionReader, WarmUp


class Shelf:
    """Objects by key, and how often each was asked for; stands where `ObjectStore` does."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.asked: list[str] = []

    def get(self, key: str, *, sha256: str) -> bytes:
        self.asked.append(key)
        if key not in self.objects:
            raise ObjectMissing
        return self.objects[key]

    def add(self, seed: int) -> DatasetImage:
        return self.put(np.random.default_rng(seed).integers(0, 255, (32, 32), dtype=np.uint8))

    def put(self, pixels: NDArray[np.uint8]) -> DatasetImage:
        png = cv2.imencode(".png", pixels, PNG)[1].tobytes()
        sha256 = hashlib.sha256(png).hexdigest()
        self.objects[rendition_key(sha256)] = png
        return replace(tiny_dataset(1).images[0], rendition_sha256=sha256)


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


def reader(shelf: Shelf, folder: Path, max_bytes: int = 10**6) -> RenditionReader:
    return RenditionReader(shelf, folder, max_bytes)


def test_an_image_is_fetched_once_also_by_the_next_process(shelf: Shelf, tmp_path: Path) -> None:
    image = shelf.add(0)
    first = reader(shelf, tmp_path)
    pixels = first(image)
    assert np.array_equal(first(image), pixels)
    assert np.array_equal(reader(shelf, tmp_path)(image), pixels)
    assert len(shelf.asked) == 1


@pytest.mark.parametrize("damage", [lambda held: held[:-10], lambda held: b"", lambda held: held[:-1] + b"x"])
def test_a_damaged_file_is_fetched_again(shelf: Shelf, tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    image = shelf.add(0)
    pixels = reader(shelf, tmp_path)(image)
    (file,) = tmp_path.glob("*/*")
    file.write_bytes(damage(file.read_bytes()))
    assert np.array_equal(reader(shelf, tmp_path)(image), pixels)
    assert len(shelf.asked) == 2


def test_the_cache_has_the_pixels_of_the_png_in_about_as_many_bytes(tmp_path: Path) -> None:
    shelf, seen = Shelf(), []
    for height, width in ((1, 1), (1, 7), (500, 420), (333, 500)):
        pixels = np.rint(255 * make_phantom(height, 500, 500, None).pixels[:height, :width]).astype(np.uint8)
        image = shelf.put(pixels)
        seen += [image]
        for _ in range(2):
            assert np.array_equal(reader(shelf, tmp_path)(image), pixels)
    assert len(shelf.asked) == len(seen)
    for image in seen[2:]:
        in_cache = reader(shelf, tmp_path).cache.size_of(image.rendition_sha256)
        assert in_cache < 1.1 * len(shelf.objects[rendition_key(image.rendition_sha256)])


def test_the_folder_stays_within_its_bound_and_keeps_what_was_read_last(shelf: Shelf, tmp_path: Path) -> None:
    images = [shelf.add(seed) for seed in range(10)]
    size = len(shelf.objects[rendition_key(images[0].rendition_sha256)])
    read = reader(shelf, tmp_path, int(4.5 * size))
    for image in images:
        read(image)
        assert sum(file.stat().st_size for file in tmp_path.glob("*/*")) <= 4.5 * size
        for file in tmp_path.glob("*/*"):
            os.utime(file, (0, file.stat().st_mtime - 10))  # Ten seconds go by.
    shelf.asked.clear()
    read(images[-1])
    assert not shelf.asked
    read(images[0])
    assert len(shelf.asked) == 1


def test_without_room_images_are_read_all_the_same(shelf: Shelf, tmp_path: Path) -> None:
    image = shelf.add(0)
    read = reader(shelf, tmp_path, 0)
    assert read(image).shape == read(image).shape == (32, 32)
    assert not list(tmp_path.glob("*/*"))


def test_a_missing_rendition_is_said(shelf: Shelf, tmp_path: Path) -> None:
    with pytest.raises(DatasetImageMissing):
        reader(shelf, tmp_path)(tiny_dataset(1).images[0])


def test_the_cache_is_filled_in_the_background(shelf: Shelf, tmp_path: Path) -> None:
    images = [shelf.add(seed) for seed in range(12)]
    read = reader(shelf, tmp_path)
    read(images[3])
    warm_up = WarmUp(read)
    warm_up.begin(images)
    assert warm_up.total == 12
    wait_for(lambda: warm_up.done == 12)
    assert len(shelf.asked) == 12
    for image in images:
        read(image)
    assert len(shelf.asked) == 12


def test_a_cache_that_is_too_small_is_filled_once_and_its_images_stay(shelf: Shelf, tmp_path: Path) -> None:
    images = [shelf.add(seed) for seed in range(20)]
    size = len(shelf.objects[rendition_key(images[0].rendition_sha256)])
    read = reader(shelf, tmp_path, int(8 * size))
    warm_up = WarmUp(read)
    warm_up.begin(images)
    wait_for(lambda: warm_up.is_over)
    assert 4 <= warm_up.done <= 8
    assert warm_up.total <= warm_up.done, "no more images are to be cached"
    shelf.asked.clear()
    read(images[0])
    assert not shelf.asked


def test_an_image_that_cannot_be_cached_ends_the_warm_up_and_not_the_training(shelf: Shelf, tmp_path: Path) -> None:
    warm_up = WarmUp(reader(shelf, tmp_path))
    warm_up.begin(tiny_dataset(3).images)
    wait_for(lambda: warm_up.is_over)
    assert warm_up.done == 0
