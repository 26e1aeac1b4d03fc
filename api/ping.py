"""Asks a server for an answer, within a time that the server does not choose."""

import threading
import time
from collections.abc import Callable

import structlog

from api.schemas import DependencyState
from shared.errors import CarinaError, TransientError

log = structlog.get_logger()


class Ping:
    """One server. Thread-safe; a ping that hangs is waited for, not sent again."""

    def __init__(self, ask: Callable[[], None]) -> None:
        """`ask` raises one of our errors when the server does not answer."""
        self._ask = ask
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._state = DependencyState(ok=False, code=TransientError.code)

    def start(self) -> None:
        """Send a ping, where none is under way."""
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                # A daemon, so that a server which never answers does not hold up the end of the process.
                self._thread = threading.Thread(target=self._run, daemon=True)
                self._thread.start()

    def state_by(self, deadline: float) -> DependencyState:
        """Return the answer to the latest ping, or `no_answer_in_time` at `deadline` (monotonic seconds)."""
        thread = self._thread
        if thread is not None:
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                return DependencyState(ok=False, code="no_answer_in_time")
        return self._state

    def _run(self) -> None:
        try:
            self._ask()
        except CarinaError as error:
            self._state = DependencyState(ok=False, code=error.code)
        except Exception as error:  # or the last answer would stand for good
            log.error("ping_failed", exc_info=error)
            self._state = DependencyState(ok=False, code=CarinaError.code)
        else:
            self._state = DependencyState(ok=True)
