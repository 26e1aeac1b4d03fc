"""Background loops: a step every so often, for as long as the process lives.

A process that lives can work. So no error ends a loop, and a loop whose thread has died ends the process, whose
supervisor starts a new one: nobody would notice the thread alone.
"""

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future

import structlog

from shared.errors import TransientError

log = structlog.get_logger()

#: What a process ends with when one of its loops has (EX_SOFTWARE of sysexits.h).
EXIT_LOOP_DIED = 70
#: The most between a step that failed and the next one, unless the loop itself is slower.
LONGEST_PAUSE_S = 10.0


def run_steps(
    name: str,
    step: Callable[[], object],
    stop: threading.Event,
    *,
    every_s: float,
    longest_pause_s: float = LONGEST_PAUSE_S,
) -> None:
    """Take a step every `every_s` seconds until `stop` is set; a step that returns True is taken again at once.

    A step that raises is logged as `loop_failed`; from the second one on the pauses double up to `longest_pause_s`.
    """
    pause_s, failures = every_s, 0
    while not stop.wait(pause_s):
        try:
            pause_s, failures = 0.0 if step() is True else every_s, 0
        except Exception as exc:
            pause_s = max(every_s, min(every_s * 2**failures, longest_pause_s))
            failures = min(failures + 1, 30)
            if isinstance(exc, TransientError):
                log.warning("loop_failed", loop=name, code=exc.code, detail=exc.detail)
            else:
                log.error("loop_failed", loop=name, exc_info=exc)


class Loop:
    """A loop in a thread of its own."""

    def __init__(
        self,
        name: str,
        step: Callable[[], object],
        *,
        every_s: float,
        longest_pause_s: float = LONGEST_PAUSE_S,
    ) -> None:
        self._name = name
        self._step = step
        self._every_s = every_s
        self._longest_pause_s = longest_pause_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin; the first step is taken after the first pause."""
        self._thread.start()

    def ask_to_stop(self) -> None:
        """Take no further step."""
        self._stop.set()

    def stop(self) -> None:
        """Take no further step, and wait for the end of the one under way."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        try:
            run_steps(self._name, self._step, self._stop, every_s=self._every_s, longest_pause_s=self._longest_pause_s)
        finally:
            if not self._stop.is_set():
                log.critical("loop_died", loop=self._name)
                os._exit(EXIT_LOOP_DIED)


def watched(future: Future[None]) -> Future[None]:
    """Return a future that nobody asks for its result, so that an error in it is logged."""
    future.add_done_callback(_log_failure)
    return future


def _log_failure(future: Future[None]) -> None:
    if not future.cancelled() and (exc := future.exception()) is not None:
        log.error("thread_failed", exc_info=exc)
