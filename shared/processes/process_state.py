"""The state of a process, for `carina probe` and `carina up`: one small file per process, replaced atomically.

This module imports little, because a probe runs every few seconds and must start in a fraction of a second.
"""

import json
import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from shared.errors import SetupError
from shared.processes.scratch import is_private, make_private, own_folder

#: The path of the file. By default it is in the temporary folder and has the name of the process.
VARIABLE = "CARINA_STATE_FILE"
#: Seconds between two signs of life, and the largest age of the last one of a live process.
SIGN_EVERY_S, ALIVE_WITHIN_S = 5.0, 30.0
STARTING = {"process": "starting"}


class NoStateFile(SetupError):
    """The process cannot write its state file."""

    code = "no_state_file"


@dataclass(frozen=True)
class ProcessState:
    """The last state that a process wrote."""

    process: str
    pid: int
    #: The start time of the process, in the system's clock ticks: another process may get the same id later.
    started: str
    #: The last sign of life, in seconds of the system's monotonic clock.
    alive_at_s: float
    #: Error codes by server: the reasons why this process takes no work. Empty: it takes work.
    not_ready: Mapping[str, str] = field(default_factory=dict)
    #: Error codes by server: the reasons why work is slower.
    degraded: Mapping[str, str] = field(default_factory=dict)

    @property
    def has_ended(self) -> bool:
        """Whether the process has ended, even if another process has its id."""
        return start_of(self.pid) != self.started

    @property
    def silent_s(self) -> float:
        """Seconds since the last sign of life."""
        return time.monotonic() - self.alive_at_s

    def __str__(self) -> str:
        return f"{self.process} (process {self.pid})"


class StateFile:
    """The state file of this process, written by a thread that never waits for a server."""

    def __init__(self, process: str, *, is_stuck: Callable[[], bool] = lambda: False) -> None:
        """Write the first state; raise `NoStateFile`. `is_stuck` returns whether the process makes no progress."""
        self.path = _own_path(process)
        self._is_stuck = is_stuck
        self._stop = threading.Event()
        self._lock = threading.Lock()
        pid = os.getpid()
        self._state = ProcessState(process, pid, start_of(pid), time.monotonic(), STARTING)
        try:
            self._write()
        except OSError as exc:
            raise NoStateFile(f"The state file {self.path} cannot be written: {exc.strerror}.") from exc
        self._thread = threading.Thread(target=self._keep, name="state", daemon=True)
        self._thread.start()

    def tell(self, not_ready: Mapping[str, str], degraded: Mapping[str, str]) -> None:
        """Write the errors that keep the process from taking work, and those that make it slower."""
        self._change(not_ready=dict(not_ready), degraded=dict(degraded))

    def __enter__(self) -> "StateFile":
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Delete the file, because the process ends cleanly."""
        self._stop.set()
        self._thread.join()
        with suppress(OSError):
            self.path.unlink()

    def _keep(self) -> None:
        while not self._stop.wait(SIGN_EVERY_S):
            if not self._is_stuck():
                # If the disk is full, the file becomes too old, and the process counts as hung.
                with suppress(OSError):
                    self._change(alive_at_s=time.monotonic())

    def _change(self, **fields: Any) -> None:
        with self._lock:
            self._state = replace(self._state, **fields)
            self._write()

    def _write(self) -> None:
        new = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        new.write_text(json.dumps(asdict(self._state)))
        new.replace(self.path)


def read(path: Path) -> ProcessState | None:
    """Return the state in a file; None if it cannot be read."""
    try:
        return ProcessState(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def find(process: str = "") -> list[tuple[Path, ProcessState]]:
    """Return the states in the temporary folder, including ended processes; with `process`, those of this name."""
    folder = own_folder()
    paths = sorted(folder.glob(f"{process or '*'}-*.json")) if is_private(folder) else []
    found = [(path, read(path)) for path in paths]
    return [(path, state) for path, state in found if state and process in ("", state.process)]


def _own_path(process: str) -> Path:
    if given := os.environ.get(VARIABLE):
        return Path(given)
    folder = own_folder()
    try:
        make_private(folder)
    except OSError as exc:
        raise NoStateFile(f"The folder {folder} cannot be made ({exc.strerror}): set TMPDIR.") from exc
    for path, state in find(process):
        if state.has_ended:  # it was killed: otherwise it would have deleted the file
            path.unlink(missing_ok=True)
    return folder / f"{process}-{os.getpid()}.json"


def start_of(pid: int) -> str:
    """Return the start time of a process; empty if it has ended or is a zombie."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if after_name[0] in "ZX" else after_name[19]
