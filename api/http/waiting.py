"""Requests that last: they look again and again, and end with their time, their process, or their key."""

import time
from collections.abc import Iterator

from api.http.auth import check_again
from api.http.services import services

#: The pause between two looks grows from the first to the second.
SHORTEST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 0.5


def looks(within_s: float, pauses_s: tuple[float, float] = (SHORTEST_PAUSE_S, LONGEST_PAUSE_S)) -> Iterator[None]:
    """Yield whenever it is time to look again, until the time is over or the process is to end.

    Raises `Unauthorized` or `KeyExpired` once the request's key or session has ended. Hold no connection meanwhile.
    """
    deadline, pause_s = time.monotonic() + within_s, pauses_s[0]
    while (left_s := deadline - time.monotonic()) > 0 and not services().stopping.wait(min(pause_s, left_s)):
        check_again()
        yield
        pause_s = min(pause_s * 1.5, pauses_s[1])
