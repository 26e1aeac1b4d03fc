"""Files for a campaign: new ones, ones that were sent before, and unfit ones; of some the boxes are compared later."""

import hashlib
import threading
import zipfile
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from random import Random
from uuid import UUID

import cv2
import numpy as np

from shared.detector.runtime import Detection
from tests.e2e.sent_images import ImageSender

#: How many files stay on disk: to be sent again, and for clients that repeat a request after an outage.
_RECENT = 400
#: One file of so many stays until the end, for the comparison of its boxes.
_KEPT_OF = 40


@dataclass(frozen=True)
class File:
    """A file, and the digest by which the stack knows it."""

    path: Path
    sha256: str


class Supply:
    """Makes files for several clients at once."""

    def __init__(self, sender: ImageSender, folder: Path) -> None:
        self._sender, self._folder = sender, folder
        self._lock = threading.Lock()
        self._recent: deque[File] = deque()
        #: ImageSender whose boxes are compared.
        self.kept: list[File] = []
        self._count = 0

    @property
    def models(self) -> list[UUID]:
        """The models that may detect on these files."""
        return list(self._sender.models)

    def expect(self, file: File, model_id: UUID) -> tuple[Detection, ...]:
        """What a model finds on a file."""
        return self._sender.expect(file.path, model_id)

    def make(self, count: int) -> list[File]:
        """Make files that were never sent."""
        with self._lock:
            made = [_file(path) for path in self._sender.make(count).values()]
            for file in made:
                self._count += 1
                if self._count % _KEPT_OF == 1:
                    self.kept.append(file)
                self._recent.append(file)
            while len(self._recent) > _RECENT:
                old = self._recent.popleft()
                if old not in self.kept:
                    old.path.unlink()
        return made

    def again(self, draw: Random) -> list[File]:
        """Copy a file that was made before; none before the first. The copy is the caller's to delete."""
        with self._lock:
            if not self._recent:
                return []
            file = draw.choice(self._recent)
            copy = self._folder / f"again-{draw.getrandbits(64):x}.dcm"
            copy.write_bytes(file.path.read_bytes())
        return [File(copy, file.sha256)]

    def unfit(self, draw: Random) -> File:
        """Make a file that is no image, or a PNG whose header is right and whose pixels are cut off."""
        number = draw.getrandbits(64)
        if number % 2:
            return self._write(f"unfit-{number:x}.txt", b"no image %d" % number)
        noise = np.random.default_rng(number).integers(0, 255, (80, 72), np.uint8)
        png = cv2.imencode(".png", noise)[1].tobytes()
        return self._write(f"unfit-{number:x}.png", png[: len(png) // 2])

    def pack(self, files: list[File], draw: Random) -> Path:
        """Write files into a zip archive."""
        path = self._folder / f"files-{draw.getrandbits(64):x}.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for file in files:
                archive.write(file.path, file.path.name)
        return path

    def _write(self, name: str, content: bytes) -> File:
        path = self._folder / name
        path.write_bytes(content)
        return _file(path)


def _file(path: Path) -> File:
    return File(path, hashlib.sha256(path.read_bytes()).hexdigest())
