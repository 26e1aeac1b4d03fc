"""The history of crashes: which process of a data folder ended by itself, when and why. It survives `carina down`."""

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass

from deploy.stack.folder import Folder, write_private

#: Earlier crashes are dropped.
MAX_CRASHES = 100


@dataclass(frozen=True)
class Crash:
    """The end of a process that was not asked to stop."""

    name: str
    #: ISO 8601, UTC.
    at: str
    #: The exit code or signal, or why the process was given up.
    reason: str
    #: Seconds from its start to its end.
    ran_s: float


def record(folder: Folder, crash: Crash) -> None:
    """Add a crash. On a full disk the history stays as it is."""
    lines = [json.dumps(asdict(each)) for each in [*read(folder), crash][-MAX_CRASHES:]]
    with suppress(OSError):
        write_private(folder.crash_file, "\n".join(lines) + "\n")


def read(folder: Folder) -> list[Crash]:
    """Return the crashes, the latest one last."""
    return list(_read(folder))


def _read(folder: Folder) -> Iterator[Crash]:
    with suppress(FileNotFoundError, NotADirectoryError):
        for line in folder.crash_file.read_text().splitlines():
            with suppress(ValueError, TypeError):  # incomplete after a power failure
                yield Crash(**json.loads(line))
