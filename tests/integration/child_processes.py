"""Processes of Carina, and what they say of themselves."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from shared.processes import process_state
from tests.integration.forked import Forked, command
from tests.requirements import REPOSITORY
from tests.waiting import DEADLINE_S


@dataclass
class Processes:
    """Processes of Carina that share a Redis of this test's own."""

    environ: dict[str, str]
    folder: Path
    closing: ExitStack
    #: Start programs as in production, where a process' own environment is the point; else fork, which is quicker.
    as_programs: bool = False
    running: dict[str, "subprocess.Popen[bytes] | Forked"] = field(default_factory=dict)

    def start(self, *words: str, called: str = "", **more: str) -> str:
        """Start a command with these variables too; return its name."""
        name = called or words[-1]
        env = os.environ | {process_state.VARIABLE: str(self.state_file(name))} | self.environ | more
        log = self.folder / f"{name}.log"
        process = self.running[name] = _program(words, env, log) if self.as_programs else command(words, env, log)
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

    def _end(self, process: "subprocess.Popen[bytes] | Forked") -> None:
        if process.poll() is None:
            process.kill()
            process.wait()


def _program(words: Sequence[str], env: Mapping[str, str], log: Path) -> "subprocess.Popen[bytes]":
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "deploy", *words], cwd=REPOSITORY, env=env, stdout=output, stderr=output
        )
