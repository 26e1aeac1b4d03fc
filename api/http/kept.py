"""What is costly to read and asked for often: read by one request at a time, and kept for a while."""

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

Value = TypeVar("Value")

#: What was read is kept for this many times as long as reading took, so that no number of requests costs PostgreSQL
#: more than a fiftieth of its time.
PER_SECOND_OF_READING = 50


class Kept(Generic[Value]):
    """A value that is read again once it is too old. Thread-safe."""

    def __init__(self, read: Callable[[], Value], *, least_s: float = 0.0) -> None:
        self._read = read
        self._least_s = least_s
        self._lock = threading.Lock()
        self._value: Value | None = None
        self._until = 0.0

    def get(self) -> Value:
        """Return the value as it was a moment ago; raises what reading raises."""
        with self._lock:
            started = time.monotonic()
            if self._value is None or started >= self._until:
                self._value = self._read()
                now = time.monotonic()
                self._until = now + max(self._least_s, PER_SECOND_OF_READING * (now - started))
            return self._value
