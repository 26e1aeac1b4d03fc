"""Keeps the readiness in a process' state file up to date."""

from shared.processes.loops import Loop
from shared.processes.process_state import StateFile
from shared.processes.readiness import Readiness

#: Seconds between two checks.
CHECK_EVERY_S = 10.0


class ReadinessMonitor:
    """Checks periodically whether the process can take work, and writes the outcome into its state file."""

    def __init__(self, readiness: Readiness, state: StateFile) -> None:
        self._readiness, self._state = readiness, state
        #: Whether Redis accepted the last test hint.
        self.hints_flow = True
        self._loop = Loop("readiness", self._look, every_s=CHECK_EVERY_S)

    def __enter__(self) -> "ReadinessMonitor":
        self._look()
        self._loop.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._loop.stop()

    def _look(self) -> None:
        outcome = self._readiness.look()
        self.hints_flow = not outcome.degraded
        self._state.tell(outcome.not_ready, outcome.degraded)
