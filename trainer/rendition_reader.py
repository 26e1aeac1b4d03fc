"""Reads the renditions of images through the cache of this machine.

The cache has the pixels in another compression: as many bytes as a PNG file, and decoded in a sixth of the time.
"""

import struct
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import imagecodecs
import numpy as np
import structlog
from numpy.typing import NDArray

from shared.errors import CarinaError, ObjectMissing, PermanentError
from shared.imaging.rendition import read_rendition
from shared.object_store import ObjectStore, rendition_key
from shared.processes.scratch import make_private, own_folder
from shared.settings import Settings
from trainer.datasets.dataset import DatasetImage
from trainer.machine_cache import LEFT_AFTER_CLEANING, MachineCache

log = structlog.get_logger()

#: The height and width before the compressed pixels in the cache.
_SIZE = struct.Struct("<II")
#: Downloads at a time while the cache is filled.
_DOWNLOADS = 4


class DatasetImageMissing(PermanentError):
    """An image of the dataset is missing in the object store, for example because its study was erased. Create the
    dataset again."""

    code = "film_missing"


class RenditionReader:
    """Reads the renditions of images. Thread-safe."""

    def __init__(self, store: ObjectStore, folder: Path, max_bytes: int) -> None:
        self.cache = MachineCache(store, folder, max_bytes)

    @classmethod
    def from_settings(cls, settings: Settings, store: ObjectStore) -> "RenditionReader":
        """Cache in the folder of the settings, else in this user's temporary files. Raises `FolderNotOurs`."""
        named = settings.trainer_cache_folder
        folder = Path(named) if named else make_private(own_folder()) / "renditions"
        remedy = "name another folder in CARINA_TRAINER_CACHE_FOLDER"
        return cls(store, make_private(folder, remedy), settings.trainer_cache_bytes)

    def __call__(self, image: DatasetImage) -> NDArray[np.uint8]:
        """Return the rendition of an image, uint8 [h, w]. Raises `DatasetImageMissing` and `ObjectCorrupt`."""
        try:
            content = self.cache.get(rendition_key(image.rendition_sha256), image.rendition_sha256, _compress)
        except ObjectMissing as exc:
            raise DatasetImageMissing from exc
        height, width = _SIZE.unpack_from(content)
        differences = imagecodecs.zstd_decode(content[_SIZE.size :], out=height * width)
        by_row = np.frombuffer(differences, np.uint8).reshape(height, width)
        return np.asarray(imagecodecs.delta_decode(by_row, axis=1), np.uint8)


def _compress(png: bytes) -> bytes:
    """Compress the differences of neighbouring pixels: like PNG, they have no repetitions worth a search."""
    pixels = read_rendition(png)
    differences = imagecodecs.delta_encode(pixels, axis=1).tobytes()
    return _SIZE.pack(*pixels.shape) + bytes(imagecodecs.zstd_encode(differences, level=1))


class WarmUp:
    """Fills the cache with images in the order in which they are needed, in threads, while the training runs."""

    def __init__(self, read: RenditionReader) -> None:
        self._read = read
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._bytes_left = LEFT_AFTER_CLEANING * read.cache.max_bytes
        #: The number of images to be cached by this rank, and of those that are.
        self.total = self.done = 0

    def begin(self, images: Sequence[DatasetImage]) -> None:
        """Start to download the images that are not in the cache."""
        sizes = [self._size_of(image) for image in images]
        self.total, self.done = len(images), len(images) - sizes.count(0)
        self._bytes_left -= sum(sizes)
        threads = ThreadPoolExecutor(_DOWNLOADS, thread_name_prefix="warm-up")
        for image, size in zip(images, sizes, strict=True):
            if not size:
                threads.submit(self._fetch, image)
        threads.shutdown(wait=False)

    @property
    def is_over(self) -> bool:
        """Return whether all images are in the cache, or as many as it may hold."""
        return self._stop.is_set() or self.done == self.total

    def end(self) -> None:
        """Stop after the current downloads."""
        self._stop.set()

    def _size_of(self, image: DatasetImage) -> int:
        return self._read.cache.size_of(image.rendition_sha256)

    def _fetch(self, image: DatasetImage) -> None:
        if self._stop.is_set():
            return
        try:
            size = self._size_of(image) or self._read(image).size
        except CarinaError as error:  # raised again when the training needs the image
            log.warning("warm_up_failed", code=error.code)
            self._stop.set()
            return
        with self._lock:
            self.done += 1
            self._bytes_left -= size
            if self._bytes_left < _DOWNLOADS * size:  # more images would replace those that are in the cache
                self._stop.set()
                self.total = self.done
