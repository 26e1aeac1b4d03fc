"""The log files of the stack's processes, kept from growing without bound."""

import shutil
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

MAX_BYTES = 8 * 1024**2
_TAIL_LINES = 15


class Log:
    """One process's output. At `MAX_BYTES` it is moved to `NAME.log.1`, which is overwritten."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._begin = 0

    def open(self) -> BinaryIO:
        """For appending: a process goes on at the new end after `bound` has emptied the file under it."""
        return self.path.open("ab")

    def mark(self) -> None:
        """From here on is what `tail` shows."""
        self._begin = self.path.stat().st_size if self.path.exists() else 0

    def bound(self) -> None:
        """Copy a file that has become too long aside and empty it; what is written in between is lost."""
        with suppress(FileNotFoundError):
            if self.path.stat().st_size > MAX_BYTES:
                shutil.copyfile(self.path, self.path.with_name(f"{self.path.name}.1"))
                with self.path.open("r+b") as file:
                    file.truncate()
                self._begin = 0

    def tail(self) -> list[str]:
        """The last lines since `mark`."""
        with suppress(FileNotFoundError), self.path.open("rb") as file:
            file.seek(self._begin)
            return file.read().decode(errors="replace").splitlines()[-_TAIL_LINES:]
        return []
