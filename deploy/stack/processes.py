"""Facts about processes from Linux's `/proc`, and how to end them.

A process is named by its pid *and* the time it started: pids are reused, so a pid alone may name a stranger.
"""

import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from deploy.stack.errors import StackError

_PROC = Path("/proc")
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_POLL_S = 0.02


@dataclass(frozen=True)
class Process:
    """One process as `/proc/PID/stat` tells it."""

    pid: int
    name: str
    state: str
    parent: int
    group: int
    #: Boot id and clock ticks since boot: with the pid, unique for ever.
    started: str

    @property
    def runs(self) -> bool:
        """Not a zombie, which only waits for its parent to read its exit status."""
        return self.state not in "ZX"


def require_linux() -> None:
    """Raise `StackError` elsewhere: ending children with their parent and finding stale ones need Linux."""
    if sys.platform != "linux":
        raise StackError("The embedded stack runs on Linux only; elsewhere use docker-compose.yml.")


def find(pid: int) -> Process | None:
    """The process with this pid, or None."""
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except OSError:
        return None
    # The name stands in parentheses and may itself hold spaces and parentheses.
    name, _, rest = text.partition("(")[2].rpartition(")")
    fields = rest.split()
    return Process(pid, name, fields[0], int(fields[1]), int(fields[2]), f"{_boot_id()}:{fields[19]}")


def every() -> Iterator[Process]:
    """All processes that can be seen."""
    for entry in _PROC.iterdir():
        if entry.name.isdecimal() and (process := find(int(entry.name))):
            yield process


def is_running(pid: int, started: str) -> bool:
    """Whether the process that was given this pid at that time still runs."""
    process = find(pid)
    return process is not None and process.started == started and process.runs


def children() -> list[Process]:
    """Our own children; zombies too."""
    return [process for process in every() if process.parent == os.getpid()]


def working_in(folder: Path) -> list[Process]:
    """The processes whose working directory is `folder`, as far as we may look."""
    return [process for process in every() if process.runs and _cwd(process.pid) == str(folder.resolve())]


def environment(pid: int) -> frozenset[bytes]:
    """The `NAME=value` pairs that the process was started with, as far as we may look."""
    try:
        return frozenset((_PROC / str(pid) / "environ").read_bytes().split(b"\0"))
    except OSError:
        return frozenset()


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent dies, so that none can escape."""
    _libc().prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(number: signal.Signals) -> Callable[[], None]:
    """What a child runs before exec to be sent `number` when we die, even of SIGKILL."""
    parent, libc = os.getpid(), _libc()

    def in_child() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, int(number))
        if os.getppid() != parent:  # it died before the line above
            os._exit(1)

    return in_child


def end(processes: Collection[Process], steps: Sequence[tuple[signal.Signals, float]]) -> None:
    """Send each signal to what still runs and wait up to its seconds, until nothing does.

    Raises `StackError` for those that outlive every step.
    """
    left = list(processes)
    for number, wait_s in steps:
        for process in left:
            send(process, number)
        deadline = time.monotonic() + wait_s
        while (left := [p for p in left if is_running(p.pid, p.started)]) and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        if not left:
            return
    if left:
        raise StackError(f"Cannot end {', '.join(f'{p.name} (pid {p.pid})' for p in left)}.")


def send(process: Process, number: signal.Signals) -> None:
    """Send a signal, unless the process has gone."""
    if is_running(process.pid, process.started):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(process.pid, number)


def reap(process: Process) -> None:
    """Let a zombie child go, unless somebody else has."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(process.pid, os.WNOHANG)


def _cwd(pid: int) -> str | None:
    try:
        return str((_PROC / str(pid) / "cwd").readlink())
    except OSError:
        return None


@cache
def _boot_id() -> str:
    return (_PROC / "sys/kernel/random/boot_id").read_text().strip()


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
