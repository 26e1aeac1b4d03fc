"""The heartbeat of a worker: renews its leases while it makes progress, and ends the process if it does not.

Otherwise a hung decoder or device would keep its jobs for ever, because the thread that renews leases still runs.
"""

import os
import threading
import time
from collections.abc import Iterable
from contextlib import suppress

import structlog

from shared.database import Database
from shared.errors import DatabaseUnavailable
from shared.leases import Lease, renew
from shared.processes.loops import Loop
from shared.processes.owners import make_owner
from shared.queue.claim import Claim
from shared.queue.workers import end_leases_of_ended, mark_seen, mark_stopped
from shared.vocabulary.states import WorkerKind

log = structlog.get_logger()

#: The exit code of a process that made no progress (EX_SOFTWARE of sysexits.h); its leases expire by themselves.
EXIT_STUCK = 70
MAX_INTERVAL_S = 20.0


class Heartbeat:
    """Renews the leases of this process in its own thread. `owner` is the owner of all of them."""

    def __init__(
        self, database: Database, kind: WorkerKind, *, lease_s: float, stuck_after_s: float, slot: str = ""
    ) -> None:
        self.owner = make_owner(kind, slot)
        self._database = database
        self._kind = kind
        self._lease_s = lease_s
        self._stuck_after_s = stuck_after_s
        self._held: set[Lease] = set()
        self._lock = threading.Lock()
        self._progressed_at = time.monotonic()
        self._device: str | None = None
        every_s = min(lease_s / 3, MAX_INTERVAL_S)
        self._loop = Loop("heartbeat", self._beat, every_s=every_s, max_pause_s=every_s)

    def start(self, device: str | None = None) -> int:
        """Write the row of this process and start the thread. If the database is down, the next beat writes the row.

        Ends the leases of ended processes, such as this one's predecessor; returns how many.
        """
        self._device = device
        ended = 0
        with suppress(DatabaseUnavailable), self._database.begin() as session:
            mark_seen(session, self.owner, self._kind, device)
            ended = end_leases_of_ended(session, self.owner)
        self._loop.start()
        return ended

    def stop(self) -> None:
        """Record that this process has ended cleanly."""
        self._loop.stop()
        with suppress(DatabaseUnavailable), self._database.begin() as session:
            mark_stopped(session, self.owner)

    def hold(self, claims: Iterable[Lease]) -> None:
        """Renew these leases from now on."""
        with self._lock:
            if not self._held:
                self._progressed_at = time.monotonic()
            self._held.update(claims)

    def mark_progress(self) -> None:
        """Record progress: a step of work has ended."""
        with self._lock:
            self._progressed_at = time.monotonic()

    def is_stuck(self) -> bool:
        """Whether this process holds work and has made no progress with it for too long."""
        with self._lock:
            return bool(self._held) and time.monotonic() - self._progressed_at > self._stuck_after_s

    def held(self) -> list[Claim]:
        """Return the jobs that this process holds."""
        with self._lock:
            return [held for held in self._held if isinstance(held, Claim)]

    def drop(self, claims: Iterable[Lease]) -> None:
        """Stop renewing these leases, because their rows are finished or released."""
        with self._lock:
            self._held.difference_update(claims)
            self._progressed_at = time.monotonic()

    def _beat(self) -> None:
        with self._lock:
            held = list(self._held)
            silent_s = time.monotonic() - self._progressed_at
        if self.is_stuck():
            log.critical("worker_stuck", owner=self.owner, held=len(held), silent_s=round(silent_s))
            os._exit(EXIT_STUCK)
        with self._database.begin() as session:
            kept = renew(session, held, lease_s=self._lease_s)
            mark_seen(session, self.owner, self._kind, self._device)
        if kept < len(held):
            # They were cancelled or have just been committed. The fence drops results of rows that are no longer held.
            log.info("leases_gone", owner=self.owner, count=len(held) - kept)
