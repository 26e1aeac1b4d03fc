"""Waiting for what other threads and processes do, on a machine that may be busy with other work too."""

import time
from collections.abc import Callable, Iterable
from typing import TypeVar

import psutil
import pytest
import sqlalchemy as sa

from shared.database import Database

Answer = TypeVar("Answer")

#: Far longer than any step of a test takes; it ends a wait for something that never happens.
DEADLINE_S = 300.0


def wait_for(
    condition: Callable[[], Answer], explain: Callable[[], object] = lambda: "", *, pause_s: float = 0.02
) -> Answer:
    """Ask until the answer is true, and return it; fail after `DEADLINE_S` with what `explain` returns."""
    deadline = time.monotonic() + DEADLINE_S
    while not (answer := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"It did not happen within {DEADLINE_S:g} s. {explain()}")
        time.sleep(pause_s)
    return answer


def wait_until_gone(processes: Iterable[psutil.Process]) -> None:
    """Wait until all these processes have ended."""
    _, alive = psutil.wait_procs(list(processes), timeout=DEADLINE_S)
    assert not alive


def wait_until_blocked(database: Database) -> None:
    """Wait until a transaction in this database waits for a lock that another one holds."""
    blocked = sa.text(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )

    def is_blocked() -> bool:
        with database.begin() as session:
            return bool(session.scalar(blocked))

    wait_for(is_blocked)
