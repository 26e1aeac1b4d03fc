"""The processes of one task: start them, watch them, ask them to stop, and kill them."""

import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from trainer.process import TRAINER_PID

LOG_LINES = 200
#: Maximum time for a process to write its checkpoint after it was asked to stop.
STOP_S = 30.0
#: Time for the processes of a task that has succeeded to exit before they are killed.
EXIT_S = 30.0


class TaskProcess:
    """The processes of a task and their output."""

    def __init__(self, command: list[str], environ: Mapping[str, str] | None = None, machine: str = "") -> None:
        """Start them. With `machine`, each line of the log begins with it."""
        self._machine = f"[{machine}] " if machine else ""
        environment = (
            os.environ
            | dict(environ or {})
            | {
                TRAINER_PID: str(os.getpid()),
                "PYTHONUNBUFFERED": "1",
                # so that a folder named `shared` in the working directory is not imported
                "PYTHONSAFEPATH": "1",
            }
        )
        self._process = subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self.was_asked_to_stop = False
        self._kill_at = float("inf")
        self._lines: deque[str] = deque(maxlen=LOG_LINES)
        self._news = False
        self._reader = threading.Thread(target=self._read, name="log", daemon=True)
        self._reader.start()

    @property
    def exit_code(self) -> int | None:
        """Return the exit code of the first process; negative for a signal."""
        return self._process.returncode

    def is_running(self, wait_s: float) -> bool:
        """Wait up to `wait_s` for the end. Returns whether the process still runs."""
        try:
            self._process.wait(min(wait_s, max(0.0, self._kill_at - time.monotonic())))
        except subprocess.TimeoutExpired:
            if time.monotonic() >= self._kill_at:
                self._process.kill()
            return True
        return False

    def has_children(self) -> bool:
        """Return whether the first process has children, which for torchrun are the ranks; True if unknown."""
        try:
            return bool(Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split())
        except OSError:
            return True

    def ask_to_stop(self) -> None:
        """Ask the process to write a checkpoint and exit; it is killed after `STOP_S`."""
        self.was_asked_to_stop = True
        self._kill_at = time.monotonic() + STOP_S
        self._process.terminate()

    def end(self) -> int:
        """Kill the process if it still runs, and return its exit code. Ranks exit when their launcher has ended."""
        if self._process.poll() is None:
            self._process.kill()
        code = self._process.wait()
        self._reader.join(timeout=5)
        return code

    def new_log_tail(self) -> str | None:
        """Return the last lines, or None if there are no new ones."""
        if not self._news:
            return None
        self._news = False
        return self.log_tail()

    def log_tail(self) -> str:
        """Return the last lines."""
        return "\n".join(list(self._lines))

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                with suppress(OSError):  # the processes continue if the trainer's output is closed
                    sys.stdout.write(line)
                    sys.stdout.flush()
                # PostgreSQL's text cannot contain NUL.
                self._lines.append(self._machine + line.rstrip("\n").replace("\0", ""))
                self._news = True
