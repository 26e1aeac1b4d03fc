"""Waiting for something on the server to come to its end."""

import time
from collections.abc import Callable
from typing import TypeVar

#: The longest time that one request asks the server to wait.
LONG_POLL_S = 20.0
#: Minimum time between two requests if the server did not wait.
PAUSE_S = 0.5

Looked = TypeVar("Looked")


def look_until(
    look: Callable[[float], Looked],
    is_over: Callable[[Looked], bool],
    timeout_s: float,
    on_look: Callable[[Looked], object] = lambda _: None,
    pause_s: float = PAUSE_S,
) -> Looked:
    """Look until `is_over` or the timeout; return the last look. `look` gets the seconds that the server may wait."""
    deadline = time.monotonic() + timeout_s
    while True:
        asked = time.monotonic()
        looked = look(min(LONG_POLL_S, max(0.0, deadline - asked)))
        on_look(looked)
        now = time.monotonic()
        if is_over(looked) or now >= deadline:
            return looked
        # The server answers early when too many requests wait, or when it is about to stop.
        time.sleep(max(0.0, min(deadline - now, asked + pause_s - now)))
