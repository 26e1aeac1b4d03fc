"""The state file of a data folder: which processes run. The supervisor writes it; `ps`, `down` and `up` read it."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum

from deploy.stack import processes
from deploy.stack.folder import Folder, write_private

SUPERVISOR = "supervisor"


class State(StrEnum):
    """The state of a component."""

    #: The process runs, but does not answer yet.
    STARTING = "starting"
    READY = "ready"
    #: It died and waits for its next start.
    BACKOFF = "backoff"
    STOPPING = "stopping"
    #: The state file names it, but its process has ended: the supervisor was killed.
    GONE = "gone"


@dataclass(frozen=True)
class Entry:
    """One process of the stack; `pid` is None while it does not run."""

    name: str
    pid: int | None
    state: State
    #: ISO 8601, UTC: start of this state.
    since: str
    restarts: int
    #: The value of `processes.Process.started`.
    started: str

    @property
    def runs(self) -> bool:
        """Return whether its process still runs."""
        return self.pid is not None and processes.is_running(self.pid, self.started)


def write(folder: Folder, entries: Iterable[Entry]) -> None:
    """Replace the state file atomically."""
    write_private(folder.state_file, json.dumps([asdict(entry) for entry in entries], indent=2) + "\n")


def read(folder: Folder) -> list[Entry]:
    """Return the entries of the state file, with ended processes as `gone`; none after an orderly stop."""
    try:
        rows = json.loads(folder.state_file.read_text())
        entries = [Entry(**row | {"state": State(row["state"])}) for row in rows]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except (ValueError, TypeError, KeyError):  # incomplete after a power failure: then nothing runs either
        return []
    return [entry if entry.pid is None or entry.runs else gone(entry) for entry in entries]


def supervisor(folder: Folder) -> processes.Process | None:
    """Return the supervisor that wrote the state file, if it still runs."""
    for entry in read(folder):
        if entry.name == SUPERVISOR and entry.pid is not None:
            return processes.find(entry.pid)
    return None


def gone(entry: Entry) -> Entry:
    """Return the same entry without its process."""
    return Entry(entry.name, None, State.GONE, entry.since, entry.restarts, entry.started)


def forget(folder: Folder) -> None:
    """Delete the state file, because nothing runs."""
    folder.state_file.unlink(missing_ok=True)
