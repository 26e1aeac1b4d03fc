"""The log files of the stack's processes, limited in size and number."""

import shutil
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

_TAIL_LINES = 15


@dataclass(frozen=True)
class Limits:
    """The limits of each process's log."""

    #: A larger file is rotated.
    file_bytes: int = 8 * 1024**2
    #: The number of files, the current one included.
    files: int = 2


#: The limits where no others are set.
DEFAULT_LIMITS = Limits()


class Log:
    """The output of one process. A full file becomes `NAME.log.1`, the file before `NAME.log.2`, and so on."""

    def __init__(self, path: Path, limits: Limits = DEFAULT_LIMITS) -> None:
        self.path = path
        self._limits = limits
        self._begin = 0

    def open(self) -> BinaryIO:
        """Open the file for appending, so that a process continues at the end after `bound` has emptied it."""
        return self.path.open("ab")

    def say(self, line: str) -> None:
        """Append a line with the time; on a full disk it is lost."""
        with suppress(OSError), self.path.open("a") as file:
            file.write(f"{datetime.now(UTC).isoformat(timespec='milliseconds')} {line}\n")

    def mark(self) -> None:
        """Start the part of the file that `tail` returns."""
        self._begin = self.path.stat().st_size if self.path.exists() else 0

    def bound(self) -> None:
        """Rotate a file that is too large: copy it and empty it; output written in between is lost."""
        with suppress(FileNotFoundError):
            if self.path.stat().st_size > self._limits.file_bytes:
                for number in range(self._limits.files - 1, 1, -1):
                    with suppress(FileNotFoundError):
                        self._old(number - 1).replace(self._old(number))
                if self._limits.files > 1:
                    shutil.copyfile(self.path, self._old(1))
                with self.path.open("r+b") as file:
                    file.truncate()
                self._begin = 0

    def _old(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")

    def tail(self) -> list[str]:
        """Return the last lines since `mark`."""
        with suppress(FileNotFoundError), self.path.open("rb") as file:
            file.seek(self._begin)
            return file.read().decode(errors="replace").splitlines()[-_TAIL_LINES:]
        return []
