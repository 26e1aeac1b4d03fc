"""The state file of a data folder: which processes run. The supervisor writes it; `ps`, `down` and `up` read it."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum

from deploy.stack import processes
from deploy.stack.folder import Folder, write_private

SUPERVISOR = "supervisor"


class State(StrEnum):
    """Where a component stands."""

    #: The process is there but does not answer yet.
    STARTING = "starting"
    READY = "ready"
    #: It died and waits for its next start.
    BACKOFF = "backoff"
    STOPPING = "stopping"
    #: The state file names it, but its process is gone: the supervisor was killed.
    GONE = "gone"


@dataclass(frozen=True)
class Entry:
    """One process of the stack; `pid` is None while there is none."""

    name: str
    pid: int | None
    state: State
    #: ISO 8601, UTC: when it came into this state.
    since: str
    restarts: int
    #: What `processes.Process.started` said.
    started: str

    @property
    def runs(self) -> bool:
        """Whether its process still runs."""
        return self.pid is not None and processes.is_running(self.pid, self.started)


def write(folder: Folder, entries: Iterable[Entry]) -> None:
    """Replace the state file in one step."""
    write_private(folder.state_file, json.dumps([asdict(entry) for entry in entries], indent=2) + "\n")


def read(folder: Folder) -> list[Entry]:
    """The entries as last written, with the state of those that are gone set right; none after an orderly stop."""
    try:
        rows = json.loads(folder.state_file.read_text())
        entries = [Entry(**row | {"state": State(row["state"])}) for row in rows]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except (ValueError, TypeError, KeyError):  # cut short by a power failure: then nothing runs either
        return []
    return [entry if entry.pid is None or entry.runs else gone(entry) for entry in entries]


def supervisor(folder: Folder) -> processes.Process | None:
    """The supervisor that wrote the state file, while it runs."""
    for entry in read(folder):
        if entry.name == SUPERVISOR and entry.pid is not None:
            return processes.find(entry.pid)
    return None


def gone(entry: Entry) -> Entry:
    """The same entry, without its process."""
    return Entry(entry.name, None, State.GONE, entry.since, entry.restarts, entry.started)


def forget(folder: Folder) -> None:
    """Remove the state file: nothing runs."""
    folder.state_file.unlink(missing_ok=True)
