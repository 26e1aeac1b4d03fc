"""The whole of Carina as `carina up` runs it, with small images, a quick model and short leases."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from api.client import Carina
from deploy.stack import env_file, state
from deploy.stack.folder import Folder
from shared.database import Database
from shared.detector.card import ModelCard
from shared.errors import CarinaError
from shared.models import registry
from shared.object_store import ObjectStore
from shared.settings import Settings
from tests.e2e.sent_images import ImageSender
from tests.requirements import REPOSITORY
from tests.waiting import DEADLINE_S, wait_for

COMMAND = [sys.executable, "-m", "deploy.cli"]


@dataclass(frozen=True)
class Process:
    """One life of a process of the stack."""

    name: str
    pid: int
    #: How often it had been started again before this life.
    restarts: int

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)


@dataclass
class Stack:
    """A running stack."""

    data: Path
    said: Path
    #: What it was started with.
    env: Mapping[str, str]
    settings: Settings = field(init=False)
    database: Database = field(init=False)
    client: Carina = field(init=False)
    api_key: str = field(init=False)

    def connect(self) -> None:
        """Read where it answers."""
        told = env_file.read(self.data / "env")
        self.settings = Settings.from_env({**self.env, **told})
        self.database = Database.from_settings(self.settings)
        self.api_key = told["CARINA_API_KEY"]
        self.client = Carina(told["CARINA_API_URL"], self.api_key)

    def close(self) -> None:
        self.client.close()
        self.database.close()

    def processes(self) -> dict[str, state.Entry]:
        """What `carina ps` tells, by name, without the second that a command takes to start."""
        return {entry.name: entry for entry in state.read(Folder(self.data))}

    def named(self, *prefixes: str) -> list[str]:
        """The names of the processes that do the same."""
        return sorted(name for name in self.processes() if name.startswith(prefixes))

    def find(self, name: str) -> "Process":
        """A process of the stack as it runs now."""
        entry = self.processes()[name]
        assert entry.pid is not None
        return Process(name, entry.pid, entry.restarts)

    def came_back(self, before: "Process") -> None:
        """Wait until the supervisor has started it again and it answers."""

        def again() -> bool:
            entry = self.processes()[before.name]
            return entry.state == state.State.READY and entry.restarts > before.restarts

        self.until(again)

    def until(self, condition: Callable[[], object], pause_s: float = 0.02) -> None:
        """Wait for a condition; a server that is down is asked again."""

        def holds() -> bool:
            with suppress(CarinaError):
                return bool(condition())
            return False

        wait_for(holds, pause_s=pause_s)

    def query(self, statement: sa.Select) -> list:
        """Rows of the stack's own database."""
        with self.database.begin() as session:
            return list(session.execute(statement))

    def change(self, work: Callable[[Session], object]) -> None:
        with self.database.begin() as session:
            work(session)

    def promote(self, card: ModelCard, weights: bytes) -> UUID:
        """Make a model the active one."""
        with self.database.begin() as session:
            model = registry.register(session, ObjectStore(self.settings), card, weights)
            return registry.promote(session, model.id).id


@contextmanager
def running_stack(folder: Path, **settings: str) -> Iterator[Stack]:
    """Run a stack with two detect workers; these settings are added to those that make it quick."""
    env = os.environ | {
        "CARINA_LEASE_S": "6",
        "CARINA_SWEEP_INTERVAL_S": "0.5",
        "CARINA_RETRY_BACKOFF_S": "0.2",
        "CARINA_BATCH_SIZE": "4",
        "CARINA_TORCH_THREADS": "1",
        "CARINA_DEVICE": "cpu",
        "CARINA_PRECISION": "fp32",
        "CARINA_MAX_ATTEMPTS": "10",
        "OMP_NUM_THREADS": "1",
        **settings,
    }
    up = Stack(folder / "data", folder / "said", env)
    with up.said.open("w") as output:
        command = [*COMMAND, "up", "--data", str(up.data), "--detect-workers", "2"]
        process = subprocess.Popen(command, cwd=REPOSITORY, env=env, stdout=output, stderr=output)
    try:
        wait_for(lambda: "\nready in" in up.said.read_text() or process.poll() is not None, up.said.read_text)
        assert process.poll() is None, up.said.read_text()
        up.connect()
        yield up
        up.close()
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            subprocess.run(
                [*COMMAND, "down", "--data", str(up.data)], cwd=REPOSITORY, env=env, check=False, timeout=DEADLINE_S
            )
            raise


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack for all tests of a module."""
    with running_stack(tmp_path_factory.mktemp("stack")) as running:
        yield running


@pytest.fixture(scope="module")
def sender(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> ImageSender:
    """Images for this stack, and its models."""
    return ImageSender(tmp_path_factory.mktemp("films"), stack)
