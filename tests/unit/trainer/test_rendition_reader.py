"""Renditions are fetched once, kept within bounds, and never taken from a damaged file."""

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from shared.errors import ObjectMissing
from shared.object_store import rendition_key
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
        pixels = np.random.default_rng(seed).integers(0, 255, (32, 32), dtype=np.uint8)
        png = cv2.imencode(".png", pixels)[1].tobytes()
        sha256 = hashlib.sha256(png).hexdigest()
        self.objects[rendition_key(sha256)] = png
        return replace(tiny_dataset(1).images[0], rendition_sha256=sha256)


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


def reader(shelf: Shelf, folder: Path, max_bytes: int = 10**6) -> RenditionReader:
    return RenditionReader(shelf, folder, max_bytes)  # type: ignore[arg-type]


def test_an_image_is_fetched_once_also_by_the_next_process(shelf: Shelf, tmp_path: Path) -> None:
    image = shelf.add(0)
    first = reader(shelf, tmp_path)
    pixels = first(image)
    assert np.array_equal(first(image), pixels)
    assert np.array_equal(reader(shelf, tmp_path)(image), pixels)
    assert len(shelf.asked) == 1


def test_a_damaged_file_is_fetched_again(shelf: Shelf, tmp_path: Path) -> None:
    image = shelf.add(0)
    pixels = reader(shelf, tmp_path)(image)
    (file,) = tmp_path.glob("*/*")
    file.write_bytes(file.read_bytes()[:-10])
    assert np.array_equal(reader(shelf, tmp_path)(image), pixels)
    assert len(shelf.asked) == 2


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
    shelf.asked.clear()
    read(images[0])
    assert not shelf.asked


def test_an_image_that_cannot_be_cached_ends_the_warm_up_and_not_the_training(shelf: Shelf, tmp_path: Path) -> None:
    warm_up = WarmUp(reader(shelf, tmp_path))
    warm_up.begin(tiny_dataset(3).images)
    wait_for(lambda: warm_up.is_over)
    assert warm_up.done == 0
