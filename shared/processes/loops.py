"""Background loops: a step that is repeated while the process lives.

An error does not end a loop. If the thread of a loop dies, the process ends, so that its supervisor starts a new one:
the death of a thread alone would go unnoticed.
"""

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future

import structlog

from shared.errors import TransientError

log = structlog.get_logger()

#: The exit code of a process in which the thread of a loop died (EX_SOFTWARE of sysexits.h).
EXIT_LOOP_DIED = 70
#: The longest pause after a failed step, unless the interval of the loop is longer.
MAX_PAUSE_S = 10.0


def run_steps(
    name: str,
    step: Callable[[], object],
    stop: threading.Event,
    *,
    every_s: float,
    max_pause_s: float = MAX_PAUSE_S,
) -> None:
    """Call `step` every `every_s` seconds until `stop` is set; if it returns True, call it again at once.

    An error is logged as `loop_failed`. From the second one in a row on, the pause doubles up to `max_pause_s`.
    """
    pause_s, failures = every_s, 0
    while not stop.wait(pause_s):
        try:
            pause_s, failures = 0.0 if step() is True else every_s, 0
        except Exception as exc:
            pause_s = max(every_s, min(every_s * 2**failures, max_pause_s))
            failures = min(failures + 1, 30)
            if isinstance(exc, TransientError):
                log.warning("loop_failed", loop=name, code=exc.code, detail=exc.detail)
            else:
                log.error("loop_failed", loop=name, exc_info=exc)


class Loop:
    """A loop in its own thread."""

    def __init__(
        self,
        name: str,
        step: Callable[[], object],
        *,
        every_s: float,
        max_pause_s: float = MAX_PAUSE_S,
    ) -> None:
        self._name = name
        self._step = step
        self._every_s = every_s
        self._max_pause_s = max_pause_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread. The first step is called after the first pause."""
        self._thread.start()

    def ask_to_stop(self) -> None:
        """Call no further step. Does not wait."""
        self._stop.set()

    def stop(self) -> None:
        """Call no further step, and wait for the end of the current one."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        try:
            run_steps(self._name, self._step, self._stop, every_s=self._every_s, max_pause_s=self._max_pause_s)
        finally:
            if not self._stop.is_set():
                log.critical("loop_died", loop=self._name)
                os._exit(EXIT_LOOP_DIED)


def watched(future: Future[None]) -> Future[None]:
    """Return the future; an error in it is logged. For futures whose result is never read."""
    future.add_done_callback(_log_failure)
    return future


def _log_failure(future: Future[None]) -> None:
    if not future.cancelled() and (exc := future.exception()) is not None:
        log.error("thread_failed", exc_info=exc)
