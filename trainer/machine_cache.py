"""A bounded cache of objects on this machine's disk, which its ranks share, so that each is downloaded only once."""

import fcntl
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from shared.object_store import ObjectStore
from shared.processes.scratch import replace_file

#: Share of the limit that is still used after the oldest files were deleted.
LEFT_AFTER_CLEANING = 0.9
#: A file begins with the CRC of its content, which takes a third of the time of a SHA-256.
_CRC_BYTES = 4
#: The file with the number of bytes in the cache. Processes lock it to change the number.
_LEDGER = "bytes"


class MachineCache:
    """Objects by digest, possibly converted. Thread-safe; processes with the same folder keep its bound together."""

    def __init__(self, store: ObjectStore, folder: Path, max_bytes: int) -> None:
        self._store = store
        self._folder = folder
        self.max_bytes = max_bytes

    def get(self, key: str, sha256: str, convert: Callable[[bytes], bytes] = lambda content: content) -> bytes:
        """Return an object as `convert` returns it, from the cache if it is there.

        All calls for an object need the same `convert`. Raises the errors of `ObjectStore.get` and of `convert`.
        """
        path = self._path(sha256)
        with suppress(OSError), path.open("rb", buffering=0) as file:
            crc, content = file.read(_CRC_BYTES), file.read()
            if crc == _crc(content):
                os.utime(file.fileno())  # so that the least recently used file is deleted first
                return content
        content = convert(self._store.get(key, sha256=sha256))
        with suppress(OSError):  # without the cache, for example on a full disk, reading is only slower
            self._keep(path, _crc(content) + content)
        return content

    def size_of(self, sha256: str) -> int:
        """Return the bytes that an object takes in the cache; 0 if it is not there."""
        with suppress(OSError):
            return self._path(sha256).stat().st_size
        return 0

    def _path(self, sha256: str) -> Path:
        return self._folder / sha256[:2] / sha256

    def _keep(self, path: Path, content: bytes) -> None:
        with self._ledger() as ledger:
            if path.exists() and path.stat().st_size == len(content):  # another thread or process was faster
                return
            held_bytes = _read(ledger)
            if held_bytes is None or held_bytes + len(content) > self.max_bytes:
                held_bytes = self._clean(min(LEFT_AFTER_CLEANING * self.max_bytes, self.max_bytes - len(content)))
            fits = held_bytes + len(content) <= self.max_bytes
            # Before the file is written: if this process is killed in between, the number is too large, not too small.
            os.pwrite(ledger, b"%020d" % (held_bytes + fits * len(content)), 0)
            if fits:
                path.parent.mkdir(mode=0o700, exist_ok=True)
                replace_file(path, content)

    @contextmanager
    def _ledger(self) -> Iterator[int]:
        """Open and lock the file with the number of bytes, for one thread of one process at a time."""
        # A new descriptor each time, because a lock belongs to the descriptor and not to the thread.
        ledger = os.open(self._folder / _LEDGER, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(ledger, fcntl.LOCK_EX)
            yield ledger
        finally:
            os.close(ledger)

    def _clean(self, down_to_bytes: float) -> int:
        """Delete the least recently used files. Returns the bytes of the remaining ones."""
        files = sorted(self._files(), key=lambda file: file[1])
        held_bytes = sum(size for size, _, _ in files)
        for size, _, path in files:
            if held_bytes <= down_to_bytes:
                break
            path.unlink(missing_ok=True)
            held_bytes -= size
        return held_bytes

    def _files(self) -> list[tuple[int, float, Path]]:
        """Return size, time of last use and path of each file."""
        files = []
        for path in self._folder.glob("*/*"):
            with suppress(OSError):
                status = path.stat()
                files.append((status.st_size, status.st_mtime, path))
        return files


def _read(ledger: int) -> int | None:
    """Return the number of bytes; None if it was never written."""
    digits = os.pread(ledger, 20, 0)
    return int(digits) if digits.isdigit() else None


def _crc(content: bytes) -> bytes:
    return zlib.crc32(content).to_bytes(_CRC_BYTES, "big")
