"""The data folder of a stack: its paths, its lock, and the stored passwords and ports."""

import contextlib
import fcntl
import json
import os
import random
import secrets
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

from deploy.stack.errors import StackError, StackInUse
from shared.processes.scratch import FolderNotOurs, make_private, own_folder

#: Below Linux's ephemeral ports (32768 and up): an outgoing connection could take such a port while the server
#: restarts, or a client could connect to itself there.
_PORTS = range(20000, 32000)

#: Default data folder of a stack.
DEFAULT_DATA = Path(".carina")


class Folder:
    """A data folder, created at first use. Nothing outside it is changed, and no folder that existed before."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.run = self.path / "run"
        self.log = self.path / "log"
        #: Temporary files of the stack's processes; no other user has access.
        self.temporary = self.path / "tmp"
        self.env_file = self.path / "env"
        self.state_file = self.run / "state.json"
        self.crash_file = self.log / "crashes.jsonl"
        #: Set in the environment of all processes of the stack, to identify them.
        self.mark = f"CARINA_STACK_FOLDER={self.path}"
        self._lock_file = self.run / "lock"
        self._memory_file = self.path / "secrets.json"

    def make(self) -> None:
        """Create missing folders, readable only for their owner.

        Raises `StackError` if this fails, or if the folder belongs to another user.
        """
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            if (owner := self.path.stat().st_uid) != os.geteuid():
                raise StackError(f"{self.path} belongs to user {owner}: start the stack as that user.")
            if self.path.stat().st_mode & 0o022:
                raise StackError(f"Others may write to {self.path}: `chmod go-w {self.path}`, or take another folder.")
            for folder in (self.run, self.log, self.temporary):
                make_private(folder)
        except FolderNotOurs as exc:
            raise StackError(exc.detail) from exc
        except OSError as exc:
            raise StackError(f"Cannot use {self.path} as the data folder: {exc.strerror}.") from exc

    def clear_temporary(self) -> None:
        """Delete temporary files of killed processes, except their caches."""
        kept = own_folder({"TMPDIR": str(self.temporary)})
        for path in self.temporary.iterdir():
            if path.is_dir() and not path.is_symlink():
                if path != kept:
                    shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Lock the folder for this process. The kernel releases the lock when the process ends for any reason.

        Raises `StackInUse`.
        """
        descriptor = os.open(self._lock_file, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise StackInUse(
                    f"A stack already runs in {self.path}: "
                    f"`carina ps --data {self.path}` shows it, `carina down --data {self.path}` stops it."
                ) from None
            yield
        finally:
            os.close(descriptor)

    def recall(self, name: str) -> str | None:
        """Return the stored value of a name; None if there is none."""
        value = self._memory().get(name)
        return None if value is None else str(value)

    def remember(self, name: str, value: str | int) -> None:
        """Store a value for later starts."""
        write_private(self._memory_file, json.dumps(self._memory() | {name: value}, indent=2) + "\n", durable=True)

    def secret(self, name: str) -> str:
        """Return a random secret of letters, digits, `-` and `_`; created once, and stored on disk before its use."""
        if (known := self.recall(name)) is not None:
            return known
        self.remember(name, made := secrets.token_urlsafe(24))
        return made

    def port(self, name: str, say: Callable[[str], None]) -> int:
        """Return a free loopback port: the same as last time unless another program uses it."""
        key = f"{name}_port"
        known = self.recall(key)
        if known is not None and is_free(int(known)):
            return int(known)
        taken = {int(value) for other, value in self._memory().items() if other.endswith("_port")}
        port = next(p for p in random.sample(_PORTS, len(_PORTS)) if p not in taken and is_free(p))
        if known is not None:
            say(f"port {known} of {name} is taken by another program: using {port} instead")
        self.remember(key, port)
        return port

    def _memory(self) -> dict[str, str | int]:
        try:
            memory = json.loads(self._memory_file.read_text())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as exc:
            raise self._damaged(exc) from exc
        well_formed = isinstance(memory, dict) and all(
            str(value).isdecimal() if name.endswith("_port") else isinstance(value, str)
            for name, value in memory.items()
        )
        if not well_formed:
            raise self._damaged(None)
        return cast(dict[str, str | int], memory)

    def _damaged(self, error: Exception | None) -> StackError:
        reason = error.strerror if isinstance(error, OSError) else "it is damaged"
        return StackError(
            f"{self._memory_file} cannot be read: {reason}. It holds the passwords of the servers in this folder: "
            "restore it, or start anew with another --data folder."
        )


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Return whether a server could bind to this port of a local address now."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as candidate:
        # As servers do: connections in TIME_WAIT do not prevent binding, a listener does.
        candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            candidate.bind((host, port))
        except (OSError, OverflowError):  # in use, or above 65535
            return False
    return True


def write_private(path: Path, text: str, *, durable: bool = False) -> None:
    """Replace a file atomically, readable only for its owner. With `durable`, it is on disk on return."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        if durable:
            os.fsync(descriptor)
    fresh.replace(path)
