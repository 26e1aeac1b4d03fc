"""Reads renditions with a bounded cache on this machine's disk, so that each is fetched once and not once per epoch."""

import hashlib
import os
import threading
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shared.errors import ObjectMissing, PermanentError
from shared.imaging.rendition import read_rendition
from shared.object_store import ObjectStore, rendition_key
from shared.processes.scratch import make_private, own_folder, replace_file
from shared.settings import Settings
from trainer.datasets.dataset import DatasetImage

#: Share of the limit that is still used after the oldest files were deleted.
LEFT_AFTER_CLEANING = 0.9


class DatasetImageMissing(PermanentError):
    """An image of the dataset is missing in the object store, for example because its study was erased. Create the
    dataset again."""

    code = "film_missing"


class RenditionReader:
    """Reads the renditions of images. Thread-safe, and its folder can be shared between processes."""

    def __init__(self, store: ObjectStore, folder: Path, max_bytes: int) -> None:
        self._store = store
        self._folder = folder
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._held_bytes = sum(size for size, _, _ in self._files())

    @classmethod
    def from_settings(cls, settings: Settings, store: ObjectStore) -> "RenditionReader":
        """Cache in the folder of the settings, else in this user's temporary files. Raises `FolderNotOurs`."""
        named = settings.trainer_cache_folder
        folder = Path(named) if named else make_private(own_folder()) / "renditions"
        remedy = "name another folder in CARINA_TRAINER_CACHE_FOLDER"
        return cls(store, make_private(folder, remedy), settings.trainer_cache_bytes)

    def __call__(self, image: DatasetImage) -> NDArray[np.uint8]:
        """Return the rendition of an image, uint8 [h, w]. Raises `DatasetImageMissing` and `ObjectCorrupt`."""
        return read_rendition(self._fetch(image.rendition_sha256))

    def _fetch(self, sha256: str) -> bytes:
        path = self._folder / sha256[:2] / f"{sha256}.png"
        with suppress(OSError):
            png = path.read_bytes()
            if hashlib.sha256(png).hexdigest() == sha256:
                os.utime(path)  # so that the least recently used file is deleted first
                return png
        try:
            png = self._store.get(rendition_key(sha256), sha256=sha256)
        except ObjectMissing as exc:
            raise DatasetImageMissing from exc
        with suppress(OSError):  # without the cache, for example on a full disk, reading is only slower
            self._keep(path, png)
        return png

    def _keep(self, path: Path, png: bytes) -> None:
        with self._lock:
            if self._held_bytes + len(png) > self._max_bytes:
                self._clean(min(LEFT_AFTER_CLEANING * self._max_bytes, self._max_bytes - len(png)))
            if self._held_bytes + len(png) > self._max_bytes:
                return
            self._held_bytes += len(png)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_file(path, png)

    def _clean(self, down_to_bytes: float) -> None:
        """Delete the least recently used files."""
        files = sorted(self._files(), key=lambda file: file[1])
        self._held_bytes = sum(size for size, _, _ in files)
        for size, _, path in files:
            if self._held_bytes <= down_to_bytes:
                return
            path.unlink(missing_ok=True)
            self._held_bytes -= size

    def _files(self) -> list[tuple[int, float, Path]]:
        """Return size, time of last use and path of each file, including files that other processes wrote."""
        files = []
        for path in self._folder.glob("*/*"):
            with suppress(OSError):
                status = path.stat()
                files.append((status.st_size, status.st_mtime, path))
        return files
