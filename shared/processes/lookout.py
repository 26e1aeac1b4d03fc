"""Keeps a process' state file true: whether the servers that it uses let it take work."""

from shared.processes.loops import Loop
from shared.processes.process_state import StateFile
from shared.processes.readiness import Readiness

#: Between two looks.
LOOK_EVERY_S = 5.0


class Lookout:
    """Looks from time to time whether the process can take work, and writes it into its state file."""

    def __init__(self, readiness: Readiness, state: StateFile) -> None:
        self._readiness, self._state = readiness, state
        #: Whether Redis took the last hint that was tried on it.
        self.hints_flow = True
        self._loop = Loop("lookout", self._look, every_s=LOOK_EVERY_S)

    def __enter__(self) -> "Lookout":
        self._look()
        self._loop.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._loop.stop()

    def _look(self) -> None:
        outcome = self._readiness.look()
        self.hints_flow = not outcome.degraded
        self._state.tell(outcome.not_ready, outcome.degraded)
