"""How fast a machine reads a training set of VinBigData's size from its cache, with a model that does nothing."""

import hashlib
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from shared.imaging.rendition import _PNG as PNG
from shared.imaging.rendition import read_rendition
from shared.object_store import ObjectStore, rendition_key
from shared.phantoms import make_phantom
from shared.training.config import TrainingConfig
from tests.bench.figure import Figure
from tests.tiny_images import card_of, tiny_dataset
from trainer.datasets.dataset import DatasetImage
from trainer.loader import Loader
from trainer.rendition_reader import RenditionReader, WarmUp
from trainer.sampling import plan_epoch, shares

IMAGES = 15_000
#: Of a radiograph of 3000 x 2520 pixels.
HEIGHT_PX, WIDTH_PX = 1024, 860
CORES = 2
TARGET_PER_S = 2000.0


def measure() -> Iterator[Figure]:
    """Fill the cache as a training does when it begins, then read an epoch from it in batches."""
    cv2.setNumThreads(1)
    drawn = [_draw(seed) for seed in range(8)]
    with tempfile.TemporaryDirectory() as name:
        size = sum(map(len, drawn)) / len(drawn)
        count = min(IMAGES, int(0.4 * shutil.disk_usage(name).free / size))
        yield Figure("renditions", count)
        yield Figure("size of a rendition", size / 1000, "kB")
        store, images = _store(drawn, count)
        read = RenditionReader(store, Path(name), 10**12)
        warm_up = WarmUp(read)
        filled, _ = _rate(lambda: _fill(warm_up, images), count)
        yield Figure("warm-up", filled, "images/s")
        held = sum(read.cache.size_of(image.rendition_sha256) for image in images)
        yield Figure("cache of PNG files, by bytes", held / count / size, target=1.1, sense="below")
        limit, limit_of_cores = _rate(lambda: _decode(drawn, 400), 400)
        config = TrainingConfig(architecture="fasterrcnn_resnet50_fpn", initial_weights="none", batch_size=8)
        loader = Loader(images, read, card_of(config, tiny_dataset(1)), config.augmentation, CORES)
        steps = shares(plan_epoch(images, config, 0), config, 0, 0, 1)
        rate, rate_of_cores = _rate(lambda: sum(1 for _ in loader.batches(steps)), count)
        loader.close()
        yield Figure(f"decoding PNG files alone, {CORES} threads", limit, "images/s")
        yield Figure("loader from the cache", rate, "images/s", target=min(TARGET_PER_S, limit))
        yield Figure("loader of decoding, by processor time", rate_of_cores / limit_of_cores, target=1)
        yield Figure(f"loader on {CORES} cores, by processor time", CORES * rate_of_cores, "images/s")


class _Store(ObjectStore):
    def __init__(self, renditions: dict[str, tuple[bytes, bytes]]) -> None:
        """Keep renditions by key, each in two parts."""
        self._renditions = renditions

    def get(self, key: str, *, sha256: str) -> bytes:
        """Return a rendition."""
        return b"".join(self._renditions[key])


def _draw(seed: int) -> bytes:
    phantom = make_phantom(seed, HEIGHT_PX, WIDTH_PX, None)
    return cv2.imencode(".png", np.rint(255 * phantom.pixels).astype(np.uint8), PNG)[1].tobytes()


def _store(drawn: list[bytes], count: int) -> tuple[_Store, list[DatasetImage]]:
    """Make different files of the same few pictures: a PNG may have more bytes after its end."""
    one, images, renditions = tiny_dataset(1).images[0], [], {}
    for number in range(count):
        parts = drawn[number % len(drawn)], number.to_bytes(8, "big")
        sha256 = hashlib.sha256(b"".join(parts)).hexdigest()
        renditions[rendition_key(sha256)] = parts
        size = {"rendition_height_px": HEIGHT_PX, "rendition_width_px": WIDTH_PX}
        images.append(replace(one, image_id=number, rendition_sha256=sha256, **size))
    return _Store(renditions), images


def _fill(warm_up: WarmUp, images: list[DatasetImage]) -> None:
    warm_up.begin(images)
    while not warm_up.is_over:
        time.sleep(0.01)
    assert warm_up.done == warm_up.total


def _decode(drawn: list[bytes], count: int) -> None:
    with ThreadPoolExecutor(CORES) as threads:
        for _ in threads.map(lambda number: read_rendition(drawn[number % len(drawn)]), range(count)):
            pass


def _rate(work: Callable[[], object], count: int) -> tuple[float, float]:
    """Return images per second, and per second of the processor's time."""
    began, used = time.perf_counter(), time.process_time()
    work()
    return count / (time.perf_counter() - began), count / (time.process_time() - used)
