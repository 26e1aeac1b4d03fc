"""Long-lived requests that check for changes until their time, their process or their key ends."""

import time
from collections.abc import Iterator

from api.http.auth import check_again
from api.http.services import services

#: The pause between two checks grows from the first value to the second.
MIN_PAUSE_S, MAX_PAUSE_S = 0.05, 0.5


def poll(within_s: float, pauses_s: tuple[float, float] = (MIN_PAUSE_S, MAX_PAUSE_S)) -> Iterator[None]:
    """Yield whenever it is time to check again, until the time is over or the process stops.

    Raises `Unauthorized` or `KeyExpired` when the request's key or session has ended. Do not hold a database
    connection between two checks.
    """
    deadline, pause_s = time.monotonic() + within_s, pauses_s[0]
    while (left_s := deadline - time.monotonic()) > 0 and not services().stopping.wait(min(pause_s, left_s)):
        check_again()
        yield
        pause_s = min(pause_s * 1.5, pauses_s[1])
