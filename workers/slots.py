"""Slots: threads that work on one claimed row each. A free slot claims at once, whatever the other slots do."""

from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from shared.leases import Lease
from shared.processes.loops import watched
from workers.wakeups import Wakeups

#: Seconds between two claims for free slots while others are busy, without a hint.
LOOK_S = 1.0

Claimed = TypeVar("Claimed", bound=Lease)


class Slots:
    """A number of threads, for the rows of one worker."""

    def __init__(self, count: int, name: str, wakeups: Wakeups) -> None:
        self._count = count
        self._wakeups = wakeups
        self._threads = ThreadPoolExecutor(count, thread_name_prefix=name)

    def run(
        self,
        claim: Callable[[int], Iterable[Claimed]],
        work: Callable[[Claimed], None],
    ) -> None:
        """Work until nothing is claimed and all slots are free. `claim` gets the number of free slots, at least 1."""
        running: set[Future[None]] = set()
        while True:
            asked = self._wakeups.asked
            running = {future for future in running if not future.done()}
            if free := self._count - len(running):
                for claimed in claim(free):
                    future = watched(self._threads.submit(work, claimed))
                    future.add_done_callback(lambda _: self._wakeups.poke())
                    running.add(future)
            if not running:
                return
            has_free = len(running) < self._count
            if has_free:  # otherwise leave further hints to other workers
                self._wakeups.done(asked)
            self._wakeups.wait_in_round(LOOK_S, for_hints=has_free)
