"""What the stack costs while nobody asks anything of it."""

import time
from collections.abc import Iterator

import psutil

from tests.bench.figure import Figure
from tests.bench.servers import stack

SETTLE_S = 20
WATCH_S = 60


def measure() -> Iterator[Figure]:
    """Bring everything up, let it settle, and add up all processes' CPU time for a minute."""
    with stack() as running:
        yield Figure("`up` until ready", running.ready_in_s, "s", 10, "below")
        time.sleep(SETTLE_S)
        before, begun = _cpu_s(running.pid), time.monotonic()
        time.sleep(WATCH_S)
        after, took_s = _cpu_s(running.pid), time.monotonic() - begun
        spent = {name: after[name] - before.get(name, 0.0) for name in after}
        yield Figure("all processes, of one core", 100 * sum(spent.values()) / took_s, "%", 3, "below")
        for name, cpu_s in sorted(spent.items(), key=lambda item: -item[1]):
            yield Figure(f"of which {name}", 100 * cpu_s / took_s, "%")


def _cpu_s(pid: int) -> dict[str, float]:
    """User and system time of a process and all below it, by what they are.

    What a process has waited for counts as its own, so that the time of those that end in between is not lost.
    """
    supervisor = psutil.Process(pid)
    spent: dict[str, float] = {}
    for process in (supervisor, *supervisor.children(recursive=True)):
        times, name = process.cpu_times(), _role(process)
        spent[name] = spent.get(name, 0.0) + sum(times[:4])
    return spent


def _role(process: psutil.Process) -> str:
    command = process.cmdline()
    if "deploy.cli" in command:
        words = command[command.index("deploy.cli") + 1 :]
        return words[1] if words[0] == "worker" else {"up": "supervisor"}.get(words[0], words[0])
    return process.name() if "nanio" not in command else "nanio"
