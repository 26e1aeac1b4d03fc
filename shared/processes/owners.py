"""Names of lease owners. A name tells others on the same machine whether its process has ended."""

import hashlib
import os
import re
import socket
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from shared.ids import new_id
from shared.processes.process_state import start_of

_NAME = re.compile(
    r"(?P<kind>\w+)@(?P<host>[^/]*)(?:/(?P<slot>.*))?:(?P<pid>\d+):(?P<table>\w+)-(?P<started>\d+)-\w{8}"
)


@dataclass(frozen=True)
class _Owner:
    kind: str
    host: str
    slot: str | None
    pid: int
    #: The boot of the machine and the container whose process ids these are.
    table: str
    #: The start time of the process, because its id may be given to another one.
    started: str


def make_owner(kind: str, slot: str = "", pid: int | None = None) -> str:
    """Return a unique owner name for a process, by default this one."""
    pid = pid or os.getpid()
    host = f"{socket.gethostname()}/{slot}" if slot else socket.gethostname()
    return f"{kind}@{host}:{pid}:{_process_table()}-{start_of(pid)}-{new_id().hex[-8:]}"


def has_ended(owner: str, own: str) -> bool:
    """Return whether the process of `owner` has certainly ended, as far as the process of `own` can know.

    Processes of the same machine and container are looked up. A process of an earlier container of the same host name
    has ended if it was of the same kind and slot. Nothing is known about others.
    """
    its, ours = _read(owner), _read(own)
    if its is None or ours is None or its.host != ours.host or owner == own:
        return False
    if its.table == ours.table:
        return start_of(its.pid) != its.started
    return ours.slot is not None and (its.kind, its.slot) == (ours.kind, ours.slot)


def _read(owner: str) -> _Owner | None:
    found = _NAME.fullmatch(owner)
    return _Owner(**{**found.groupdict(), "pid": int(found["pid"])}) if found else None  # type: ignore[arg-type]


@cache
def _process_table() -> str:
    """Return an id of this boot of the machine and this container; `unknown` except on Linux."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
        return hashlib.sha256(f"{boot} {Path('/proc/self/ns/pid').readlink()}".encode()).hexdigest()[:8]
    except OSError:
        return "unknown"
