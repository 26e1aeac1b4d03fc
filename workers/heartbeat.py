"""A worker's life sign: its leases are renewed while it makes progress, and it is ended when it does not.

A hung decoder or device would otherwise hold its jobs for ever: a thread that renews leases is not proof of progress.
"""

import os
import socket
import threading
import time
from collections.abc import Iterable
from contextlib import suppress

import structlog

from shared.database import Database
from shared.errors import DatabaseUnavailable
from shared.ids import new_id
from shared.processes.loops import Loop
from shared.queue.claim import Claim, renew
from shared.queue.files import FileClaim, renew_files
from shared.queue.workers import mark_seen, mark_stopped
from shared.vocabulary.states import Stage

log = structlog.get_logger()

#: What a process that made no progress ends with (EX_SOFTWARE of sysexits.h); its leases run out by themselves.
EXIT_STUCK = 70
LONGEST_INTERVAL_S = 20.0

#: What a process may hold under a lease.
Held = Claim | FileClaim


class Heartbeat:
    """Renews what this process holds, in a thread of its own. `owner` is the fence of all its jobs."""

    def __init__(self, database: Database, stage: Stage, *, lease_s: float, stuck_after_s: float) -> None:
        self.owner = f"{stage}@{socket.gethostname()}:{os.getpid()}:{new_id().hex[-8:]}"
        self._database = database
        self._stage = stage
        self._lease_s = lease_s
        self._stuck_after_s = stuck_after_s
        self._held: set[Held] = set()
        self._lock = threading.Lock()
        self._progressed_at = time.monotonic()
        self._device: str | None = None
        every_s = min(lease_s / 3, LONGEST_INTERVAL_S)
        self._loop = Loop("heartbeat", self._beat, every_s=every_s, longest_pause_s=every_s)

    def start(self, device: str | None = None) -> None:
        """Write this process' row and begin to beat; in an outage of the database the next beat writes it."""
        self._device = device
        with suppress(DatabaseUnavailable), self._database.begin() as session:
            mark_seen(session, self.owner, self._stage, device)
        self._loop.start()

    def stop(self) -> None:
        """Say that this process has ended in good order."""
        self._loop.stop()
        with suppress(DatabaseUnavailable), self._database.begin() as session:
            mark_stopped(session, self.owner)

    def hold(self, claims: Iterable[Held]) -> None:
        """Keep these leases alive from now on."""
        with self._lock:
            if not self._held:
                self._progressed_at = time.monotonic()
            self._held.update(claims)

    def mark_progress(self) -> None:
        """Say that this process is not stuck: a step of its work has come to an end."""
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

    def drop(self, claims: Iterable[Held]) -> None:
        """Stop to renew these: they are done, or given back."""
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
            jobs = [claim for claim in held if isinstance(claim, Claim)]
            files = [claim for claim in held if isinstance(claim, FileClaim)]
            kept = renew(session, jobs, lease_s=self._lease_s) + renew_files(session, files, lease_s=self._lease_s)
            mark_seen(session, self.owner, self._stage, self._device)
        if kept < len(held):
            # Cancelled, or committed a moment ago: the fence drops what is no longer ours.
            log.info("leases_gone", owner=self.owner, count=len(held) - kept)
