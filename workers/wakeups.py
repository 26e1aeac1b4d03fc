"""Wakes the main thread of a worker: when a hint arrives, when a slot becomes free, and at the end."""

import threading
import time
from collections.abc import Callable


class Wakeups:
    """Passes hints from the consumer's thread to the main thread, which does the work. Thread-safe."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._asked = self._done = 0
        self._poked = self._stopped = False

    @property
    def asked(self) -> int:
        """The number of requested rounds of work; pass it to `done` after a round that began later."""
        with self._condition:
            return self._asked

    def ask(self) -> None:
        """Request a round of work, and return when a round that began later has ended: a busy worker takes no hints."""
        mine = self.request()
        with self._condition:
            self._condition.wait_for(lambda: self._done >= mine or self._stopped)

    def request(self) -> int:
        """Request a round of work; return its number."""
        with self._condition:
            self._asked += 1
            self._condition.notify_all()
            return self._asked

    def wait(self, patience_s: Callable[[], float]) -> int:
        """Return when a round is requested, after `patience_s`, or after `stop`; pass the returned number to `done`.

        The patience is read again every second, because it shrinks when Redis fails.
        """
        began = time.monotonic()
        with self._condition:
            while self._asked <= self._done and not self._stopped:
                left_s = began + patience_s() - time.monotonic()
                if left_s <= 0:
                    break
                self._condition.wait(min(left_s, 1.0))
            return self._asked

    def wait_in_round(self, timeout_s: float, *, for_hints: bool) -> None:
        """Return after a `poke`, after `timeout_s`, or, with `for_hints`, when a further round is requested."""
        with self._condition:
            self._condition.wait_for(lambda: self._poked or (for_hints and self._asked > self._done), timeout_s)
            self._poked = False

    def done(self, asked: int) -> None:
        """Record the end of a round that began when `asked` rounds had been requested."""
        with self._condition:
            self._done = asked
            self._condition.notify_all()

    def poke(self) -> None:
        """Wake the main thread within a round."""
        with self._condition:
            self._poked = True
            self._condition.notify_all()

    def stop(self) -> None:
        """Wake all waiting threads."""
        with self._condition:
            self._stopped = self._poked = True
            self._condition.notify_all()
