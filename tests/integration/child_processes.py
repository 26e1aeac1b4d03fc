"""Processes of Carina, started as in production, and what they say of themselves."""

import os
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from shared.processes import process_state
from tests.requirements import REPOSITORY
from tests.waiting import DEADLINE_S


@dataclass
class Processes:
    """Processes of Carina that share a Redis of this test's own."""

    environ: dict[str, str]
    folder: Path
    closing: ExitStack
    running: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)

    def start(self, *words: str, called: str = "", **more: str) -> str:
        """Start a command with these variables too; return its name."""
        name = called or words[-1]
        env = os.environ | {process_state.VARIABLE: str(self.state_file(name))} | self.environ | more
        log = self.closing.enter_context((self.folder / f"{name}.log").open("wb"))
        command = [sys.executable, "-m", "deploy", *words]
        process = self.running[name] = subprocess.Popen(command, cwd=REPOSITORY, env=env, stdout=log, stderr=log)
        self.closing.callback(self._end, process)
        return name

    def state_file(self, name: str) -> Path:
        return self.folder / f"{name}.json"

    def is_well(self, name: str, *degraded: str) -> bool:
        """Whether a process takes work, and lacks these servers."""
        assert self.running[name].poll() is None, self.said(name)
        state = process_state.read(self.state_file(name))
        return state is not None and not state.not_ready and set(state.degraded) == set(degraded)

    def said(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def stop(self, name: str) -> int:
        """Stop it in good order; return its exit code."""
        self.running[name].terminate()
        return self.running[name].wait(timeout=DEADLINE_S)

    def _end(self, process: "subprocess.Popen[bytes]") -> None:
        if process.poll() is None:
            process.kill()
            process.wait()
