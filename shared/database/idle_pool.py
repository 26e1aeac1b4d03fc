"""A pool that closes connections without recent use, so that a quiet process holds one."""

import threading
import time
from typing import Any

from sqlalchemy.pool import ConnectionPoolEntry, QueuePool

#: A connection is closed after this many seconds without use.
IDLE_S = 60.0
_SINCE = "idle_since"


class IdlePool(QueuePool):
    """Uses the most recently used connection first, and closes idle ones; one stays open."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options | {"use_lifo": True})
        self._watching = threading.Lock()

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        record.record_info[_SINCE] = time.monotonic()  # type: ignore[index]
        super()._do_return_conn(record)
        self._watch()

    def _watch(self) -> None:
        """Start a timer if there are connections to close later. At most one timer runs."""
        if self.checkedin() > 1 and self._watching.acquire(blocking=False):
            timer = threading.Timer(IDLE_S, self._close_idle)
            timer.daemon = True
            timer.start()

    def _close_idle(self) -> None:
        idle: list[ConnectionPoolEntry] = []
        with self._pool.mutex:  # type: ignore[attr-defined]
            unused = self._pool.queue  # type: ignore[attr-defined]  # the longest unused connection is first
            while len(unused) > 1 and time.monotonic() - unused[0].record_info[_SINCE] >= IDLE_S:
                idle.append(unused.popleft())
        for record in idle:
            record.close()
            self._dec_overflow()
        self._watching.release()
        self._watch()
