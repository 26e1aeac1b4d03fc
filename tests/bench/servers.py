"""A stack of its own for each bench, in a folder that goes with it."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from deploy.stack import env_file
from shared import migrations
from shared.database import Database
from shared.object_store import ObjectStore
from shared.settings import Settings

REPOSITORY = Path(__file__).parents[2]
_STOP_TIMEOUT_S = 60


@dataclass(frozen=True)
class Stack:
    """A stack that answers."""

    folder: Path
    #: What names its servers, and its API where it has one.
    environ: dict[str, str]
    #: As the stack itself says: from its command to the last process that answers.
    ready_in_s: float


@contextmanager
def stack(*options: str, **variables: str) -> Iterator[Stack]:
    """Run `carina up` with these options and settings in an empty folder; raises `RuntimeError` if it fails."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CARINA_")} | variables
    with tempfile.TemporaryDirectory(prefix="carina-bench-") as folder:
        command = [sys.executable, "-m", "deploy.cli", "up", "--data", folder, *options]
        with subprocess.Popen(command, cwd=REPOSITORY, env=clean, stdout=subprocess.PIPE, text=True) as up:
            assert up.stdout is not None
            try:
                said = []
                for line in up.stdout:
                    said.append(line)
                    if line.startswith("ready in "):
                        break
                else:
                    raise RuntimeError("The stack did not come up:\n" + "".join(said))
                ready_in_s = float(said[-1].split()[2])
                yield Stack(Path(folder), env_file.read(Path(folder) / "env"), ready_in_s)
            finally:
                up.send_signal(signal.SIGTERM)
                up.communicate(timeout=_STOP_TIMEOUT_S)


@contextmanager
def servers() -> Iterator[Settings]:
    """PostgreSQL with empty tables, Redis and an empty bucket; yields the settings that name them."""
    with stack("--servers-only") as running:
        settings = Settings.from_env(running.environ | {"CARINA_LOG_LEVEL": "warning"})
        database = Database.from_settings(settings)
        migrations.upgrade(database)
        database.close()
        ObjectStore(settings).ensure_bucket()
        yield settings
