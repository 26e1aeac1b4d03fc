"""The log files of the stack's processes, limited in size."""

import shutil
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

MAX_BYTES = 8 * 1024**2
_TAIL_LINES = 15


class Log:
    """The output of one process. At `MAX_BYTES` it is moved to `NAME.log.1`, which is overwritten."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._begin = 0

    def open(self) -> BinaryIO:
        """Open the file for appending, so that a process continues at the end after `bound` has emptied it."""
        return self.path.open("ab")

    def mark(self) -> None:
        """Start the part of the file that `tail` returns."""
        self._begin = self.path.stat().st_size if self.path.exists() else 0

    def bound(self) -> None:
        """Copy a file that is too large to `NAME.log.1` and empty it; output written in between is lost."""
        with suppress(FileNotFoundError):
            if self.path.stat().st_size > MAX_BYTES:
                shutil.copyfile(self.path, self.path.with_name(f"{self.path.name}.1"))
                with self.path.open("r+b") as file:
                    file.truncate()
                self._begin = 0

    def tail(self) -> list[str]:
        """Return the last lines since `mark`."""
        with suppress(FileNotFoundError), self.path.open("rb") as file:
            file.seek(self._begin)
            return file.read().decode(errors="replace").splitlines()[-_TAIL_LINES:]
        return []
