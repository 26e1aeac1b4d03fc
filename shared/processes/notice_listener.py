"""Listens for notices on one connection for the whole process, and wakes the threads that wait for them."""

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from selectors import EVENT_READ, DefaultSelector
from uuid import UUID

import structlog

from shared.database import Database
from shared.database.notices import CHANNEL
from shared.processes.loops import Loop

log = structlog.get_logger()

#: Seconds between two attempts to connect, and between two checks whether to stop.
_RETRY_S, _CHECK_S = 0.2, 0.5


class NoticeListener:
    """Wakes the threads of this process. Connects when a thread waits for the first time. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: dict[str, list[Callable[[], object]]] = defaultdict(list)
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._loop: Loop | None = None
        #: Whether notices arrive. If not, look for changes often.
        self.is_listening = False

    @contextmanager
    def watch(self, subject: UUID | str, wake: Callable[[], object]) -> Iterator[None]:
        """Call `wake` at each notice of this subject, and when notices may have been lost. It must not block."""
        with self._lock:
            self._waiting[str(subject)].append(wake)
            if self._loop is None and not self._stop.is_set():
                self._loop = Loop("notices", self._listen, every_s=_RETRY_S)
                self._loop.start()
        try:
            yield
        finally:
            with self._lock:
                self._waiting[str(subject)].remove(wake)
                if not self._waiting[str(subject)]:
                    del self._waiting[str(subject)]

    def close(self) -> None:
        """Stop listening, and wake all threads."""
        self._stop.set()
        if self._loop is not None:
            self._loop.stop()
        self._wake(None)

    def _listen(self) -> None:
        with self._database.dedicated_connection() as connection:
            (server_pid,) = connection.execute("SELECT pg_backend_pid()").fetchone() or (None,)
            if server_pid != connection.info.backend_pid:
                # The pooler answers for the server: in transaction mode LISTEN would reach a session of somebody else.
                log.warning("notices_not_heard", detail="PostgreSQL is behind a pooler: waiting requests poll instead.")
                assert self._loop is not None
                self._loop.ask_to_stop()
                return
            connection.execute(f"LISTEN {CHANNEL}")
            try:
                self.is_listening = True
                self._wake(None)  # notices may have been lost since the last connection
                with DefaultSelector() as arrivals:
                    arrivals.register(connection, EVENT_READ)
                    while not self._stop.is_set():
                        # psycopg itself looks ten times a second while it waits, for the sake of Ctrl-C.
                        for notice in connection.notifies(timeout=0):
                            self._wake(notice.payload.split() or None)
                        arrivals.select(_CHECK_S)
            finally:
                self.is_listening = False

    def _wake(self, subjects: list[str] | None) -> None:
        with self._lock:
            chosen = self._waiting if subjects is None else set(subjects) & self._waiting.keys()
            woken = [wake for subject in chosen for wake in self._waiting[subject]]
        for wake in woken:
            wake()
