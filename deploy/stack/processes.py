"""Reads process information from Linux's `/proc`, and ends processes.

A process is identified by its pid *and* its start time: pids are reused, so a pid alone can belong to another process.
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
    """One process as in `/proc/PID/stat`."""

    pid: int
    name: str
    state: str
    parent: int
    group: int
    #: Boot id and clock ticks since boot; unique together with the pid.
    started: str

    @property
    def runs(self) -> bool:
        """Return False for a zombie, which only waits for its parent to read its exit status."""
        return self.state not in "ZX"


def require_linux() -> None:
    """Raise `StackError` on other systems: ending children with their parent and finding stale processes need Linux."""
    if sys.platform != "linux":
        raise StackError("The embedded stack runs on Linux only; elsewhere use docker-compose.yml.")


def find(pid: int) -> Process | None:
    """Return the process with this pid, or None."""
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except OSError:
        return None
    # The name is in parentheses, and can itself contain spaces and parentheses.
    name, _, rest = text.partition("(")[2].rpartition(")")
    fields = rest.split()
    return Process(pid, name, fields[0], int(fields[1]), int(fields[2]), f"{_boot_id()}:{fields[19]}")


def every() -> Iterator[Process]:
    """Yield all visible processes."""
    for entry in _PROC.iterdir():
        if entry.name.isdecimal() and (process := find(int(entry.name))):
            yield process


def is_running(pid: int, started: str) -> bool:
    """Return whether the process with this pid and start time still runs."""
    process = find(pid)
    return process is not None and process.started == started and process.runs


def children() -> list[Process]:
    """Return the children of this process, including zombies."""
    return [process for process in every() if process.parent == os.getpid()]


def working_in(folder: Path) -> list[Process]:
    """Return the processes whose working directory is `folder`, if permissions allow reading it."""
    return [process for process in every() if process.runs and _cwd(process.pid) == str(folder.resolve())]


def environment(pid: int) -> frozenset[bytes]:
    """Return the initial `NAME=value` pairs of the process; empty if permissions do not allow reading them."""
    try:
        return frozenset((_PROC / str(pid) / "environ").read_bytes().split(b"\0"))
    except OSError:
        return frozenset()


def adopt_orphans() -> None:
    """Become the parent of each descendant whose own parent dies, so that none is lost."""
    _libc().prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(number: signal.Signals) -> Callable[[], None]:
    """Return a `preexec_fn`: the kernel sends `number` to the child when this process dies, even of SIGKILL."""
    parent, libc = os.getpid(), _libc()

    def in_child() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, int(number))
        if os.getppid() != parent:  # the parent died before the line above
            os._exit(1)

    return in_child


def end(processes: Collection[Process], steps: Sequence[tuple[signal.Signals, float]]) -> None:
    """Send each signal to the processes that still run, and wait up to its number of seconds for them to end.

    Raises `StackError` for processes that still run after the last step.
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
    """Send a signal, unless the process has ended."""
    if is_running(process.pid, process.started):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(process.pid, number)


def reap(process: Process) -> None:
    """Reap a zombie child, if it still exists."""
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
