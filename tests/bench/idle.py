"""What the stack costs while nobody asks anything of it."""

import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from deploy.stack import state
from deploy.stack.folder import Folder
from tests.bench.figure import Figure
from tests.bench.servers import stack

SETTLE_S = 20
WATCH_S = 60


def measure() -> Iterator[Figure]:
    """Bring everything up, let it settle, and add up all processes' CPU time for a minute."""
    with stack() as running:
        yield Figure("`up` until ready", running.ready_in_s, "s", 10, "below")
        time.sleep(SETTLE_S)
        before, begun = _cpu_s(running.folder), time.monotonic()
        time.sleep(WATCH_S)
        after, took_s = _cpu_s(running.folder), time.monotonic() - begun
        spent = {name: after[name] - before[name] for name in before}
        yield Figure("all processes, of one core", 100 * sum(spent.values()) / took_s, "%", 3, "below")
        for name, cpu_s in sorted(spent.items(), key=lambda item: -item[1]):
            yield Figure(f"of which {name}", 100 * cpu_s / took_s, "%")


def _cpu_s(folder: Path) -> dict[str, float]:
    """User and system time of the stack's processes, each with what it started, by the stack's own names for them.

    What a process has waited for counts as its own, so that the time of those that end in between is not lost.
    """
    spent = {}
    for entry in state.read(Folder(folder)):
        process = psutil.Process(entry.pid)
        below = [] if entry.name == state.SUPERVISOR else process.children(recursive=True)
        spent[entry.name] = sum(sum(one.cpu_times()[:4]) for one in (process, *below))
    return spent
