"""Long-lived requests that check for changes until their time, their process or their key ends."""

import threading
import time
from collections.abc import Iterator
from contextlib import nullcontext
from uuid import UUID

from api.http.auth import check_again
from api.http.services import services

#: The pause between two checks grows from the first value to the second.
MIN_PAUSE_S, MAX_PAUSE_S = 0.05, 0.5
#: The pause between two checks without a notice, while this process receives notices.
UNNOTICED_PAUSE_S = 5.0
#: The longest time until the end of the key, session or process is noticed.
_LOOK_S = 0.5


def poll(
    within_s: float, pauses_s: tuple[float, float] = (MIN_PAUSE_S, MAX_PAUSE_S), *, subject: UUID | None = None
) -> Iterator[None]:
    """Yield whenever it is time to check again, until the time is over or the process stops.

    With a `subject`, that is after each notice about it, and seldom without one. The first check comes after the
    shortest pause, because the subject may have changed before its notices were awaited.

    Raises `Unauthorized` or `KeyExpired` when the request's key or session has ended. Do not hold a database
    connection between two checks.
    """
    noticed, notices = threading.Event(), services().notices
    deadline, pause_s = time.monotonic() + within_s, pauses_s[0]
    longest_s = pause_s
    with nullcontext() if subject is None else notices.watch(subject, noticed.set):
        while time.monotonic() < deadline:
            begun = time.monotonic()
            if not _wait(noticed, begun + pause_s, min(begun + longest_s, deadline)):
                return
            hears = subject is not None and notices.is_listening
            if noticed.is_set() or not hears:  # many changes are checked less often
                pause_s = min(pause_s * 1.5, pauses_s[1])
            longest_s = UNNOTICED_PAUSE_S if hears else pause_s
            noticed.clear()
            yield


def _wait(noticed: threading.Event, earliest: float, latest: float) -> bool:
    """Wait until the latest time, or for a notice and the earliest time; return False if the process stops."""
    while (now := time.monotonic()) < (earliest if noticed.is_set() else latest):
        if noticed.is_set():
            services().stopping.wait(earliest - now)
        else:
            noticed.wait(min(latest - now, _LOOK_S))
        if services().stopping.is_set():
            return False
        check_again()
    return not services().stopping.is_set()
