"""Memory, descriptors and threads of each process of a stack over time, and whether they stay flat."""

import statistics
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import psutil
import sqlalchemy as sa

from deploy.stack.state import SUPERVISOR
from shared.errors import TransientError
from tests.e2e.conftest import Stack

MIB = 1024**2
#: The first minute of a life fills caches.
WARM_UP_S = 60.0
#: A shorter life says nothing about growth.
JUDGED_S = 360.0
#: What may be added between the first and the last third of a life: noise of the allocator and of requests under way.
MORE_MEMORY, MORE_MIB, MORE_DESCRIPTORS, MORE_THREADS = 0.15, 12.0, 8, 8
CONNECTIONS = "connections of PostgreSQL"
#: They keep the files of tables open that they have read, up to `max_files_per_process`.
SESSIONS = "child of postgres"


@dataclass(frozen=True)
class Sample:
    """One look at a process."""

    at: float
    #: Without memory that is shared: a session of PostgreSQL touches more and more of the server's buffers.
    private_mib: float
    descriptors: float
    threads: float


@dataclass(frozen=True)
class Life:
    """A life of a process: medians of its first and of its last third, after the warm-up."""

    name: str
    lasted_s: float
    first: Sample
    last: Sample

    @property
    def growth(self) -> list[str]:
        """What grew more than noise, as sentences; nothing in a life that was too short to tell."""
        if self.lasted_s < JUDGED_S:
            return []
        most = {
            "private_mib": self.first.private_mib * (1 + MORE_MEMORY) + MORE_MIB,
            "descriptors": self.first.descriptors + MORE_DESCRIPTORS,
            "threads": self.first.threads + MORE_THREADS,
        }
        if self.name == SESSIONS:
            del most["descriptors"]
        first, last = asdict(self.first), asdict(self.last)
        return [
            f"{self.name}: {what} grew from {first[what]:.0f} to {last[what]:.0f} in {self.lasted_s:.0f} s"
            for what, limit in most.items()
            if last[what] > limit
        ]

    def as_json(self) -> dict[str, Any]:
        first, last = asdict(self.first), asdict(self.last)
        thirds = {what: [round(first[what], 1), round(last[what], 1)] for what in first if what != "at"}
        return {"name": self.name, "lasted_s": round(self.lasted_s), **thirds}


class Sampler:
    """Looks at all processes of a stack, from a thread of its own."""

    def __init__(self, stack: Stack, every_s: float) -> None:
        self._stack, self._every_s = stack, every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler")
        self._samples: dict[tuple[str, int], list[Sample]] = defaultdict(list)

    def __enter__(self) -> "Sampler":
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        self._thread.join()

    def lives(self) -> list[Life]:
        """All lives, by name, the longest of a name first."""
        lives = [life for (name, _), samples in self._samples.items() if (life := life_of(name, samples))]
        return sorted(lives, key=lambda life: (life.name, -life.lasted_s))

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            self._look()

    def _look(self) -> None:
        now = time.monotonic()
        for entry in self._stack.processes().values():
            if entry.pid is not None:
                with suppress(psutil.Error):
                    head = psutil.Process(entry.pid)
                    self._add(entry.name, head, now)
                    # The API's own process only starts the one that answers. The supervisor's children have names.
                    for child in head.children(recursive=True) if entry.name != SUPERVISOR else ():
                        self._add(f"child of {entry.name}", child, now)
        with suppress(TransientError):
            count = self._stack.query(sa.text("SELECT count(*) FROM pg_stat_activity WHERE datname IS NOT NULL"))
            self._samples[CONNECTIONS, 0].append(Sample(now, 0, count[0][0], 0))

    def _add(self, name: str, process: psutil.Process, now: float) -> None:
        with suppress(psutil.Error), process.oneshot():
            memory = process.memory_info()
            private_mib = (memory.rss - memory.shared) / MIB
            sample = Sample(now, private_mib, process.num_fds(), process.num_threads())
            self._samples[name, process.pid].append(sample)


def longest(lives: Sequence[Life]) -> list[Life]:
    """The longest life of each name."""
    return [life for number, life in enumerate(lives) if number == 0 or lives[number - 1].name != life.name]


def life_of(name: str, samples: Sequence[Sample]) -> Life | None:
    """Compare the thirds of a life; None if there are not three samples."""
    if len(samples) < 3:
        return None
    warm = [sample for sample in samples if sample.at - samples[0].at >= WARM_UP_S] or list(samples)
    third = max(1, len(warm) // 3)
    return Life(name, samples[-1].at - samples[0].at, _median(warm[:third]), _median(warm[-third:]))


def _median(samples: Sequence[Sample]) -> Sample:
    rows = [(sample.at, sample.private_mib, sample.descriptors, sample.threads) for sample in samples]
    return Sample(*(statistics.median(column) for column in zip(*rows, strict=True)))
