"""A cache for one value that is expensive to read and often needed."""

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

Value = TypeVar("Value")

#: A value is kept for this many times as long as reading it took, so that any number of requests costs PostgreSQL at
#: most a fiftieth of its time.
PER_SECOND_OF_READING = 50


class TtlCache(Generic[Value]):
    """A value that is read again once it is too old. Thread-safe: one thread reads, the others wait for it."""

    def __init__(self, read: Callable[[], Value], *, min_s: float = 0.0) -> None:
        self._read = read
        self._min_s = min_s
        self._lock = threading.Lock()
        self._value: Value | None = None
        self._expires_at = 0.0

    def get(self) -> Value:
        """Return the cached value, or read it; raises what reading raises."""
        with self._lock:
            started = time.monotonic()
            if self._value is None or started >= self._expires_at:
                self._value = self._read()
                now = time.monotonic()
                self._expires_at = now + max(self._min_s, PER_SECOND_OF_READING * (now - started))
            return self._value
