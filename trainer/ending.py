"""Why the processes of an attempt ended: the cause, as opposed to the errors of processes that only lost a peer."""

import re
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Self

#: The exception at the end of a traceback, printed by a rank or by a single process.
_EXCEPTION = re.compile(r"(\[rank\d+\]: )?[\w.]+(Error|Exception)\b.*")
#: torchrun's line about a process that failed.
_FAILED = re.compile(r"failed \(exitcode: (-?\d+)\) local_rank: (\d+)")
#: Errors of a rank because another rank or machine has gone.
_OF_A_PEER = re.compile(
    r"Connection (closed|reset) by peer|Connection refused|Broken pipe|[Tt]imed? ?out waiting|Timed out after|Watchdog|"
    r"remote process exited|Socket Timeout|recvValue failed|DistNetworkError|DistBackendError|RendezvousConnectionError"
)
#: torchrun's error if a machine did not come to the rendezvous.
_ABSENT = re.compile(r"waiting for clients|\d+/\d+ clients joined|RendezvousTimeoutError")
_OUT_OF_MEMORY = re.compile(r"OutOfMemoryError|MemoryError|CUDA out of memory|Cannot allocate memory")
_SIGKILL = 9


class Kind(IntEnum):
    """The kinds of ending; of several machines' endings, the smallest kind names the cause."""

    STOPPED = 1  # asked to stop
    OUT_OF_MEMORY = 2
    HUNG = 3
    SILENT = 4  # its machine stopped responding
    KILLED = 5  # by a signal from outside
    FAILED = 6  # an exception of its own
    ABSENT = 7  # the machines did not come together
    UNKNOWN = 8
    PEER = 9  # it lost another rank


@dataclass(frozen=True)
class Ending:
    """The end of the processes of one machine."""

    kind: Kind
    #: A sentence.
    reason: str

    def at(self, machine: str) -> Self:
        """Return the same with the name of the machine."""
        return type(self)(self.kind, f"On {machine}: {self.reason}") if machine else self


def read_ending(log: str, exit_code: int | None, *, memory_ran_out: bool = False) -> Ending:
    """Return the ending that a log and the exit code of the first process tell of.

    `memory_ran_out` is whether the kernel killed processes of this machine meanwhile because its memory ran out.
    """
    lines = log.splitlines()
    errors = [found[0] for line in lines if (found := _EXCEPTION.match(line)) and "ChildFailedError" not in line]
    signals = [(int(found[2]), -int(found[1])) for line in lines if (found := _FAILED.search(line)) and found[1] < "0"]
    if exit_code is not None and exit_code < 0:
        signals.append((-1, -exit_code))
    if own := [error for error in errors if not _OF_A_PEER.search(error)]:
        kind = Kind.OUT_OF_MEMORY if _OUT_OF_MEMORY.search(own[-1]) else Kind.FAILED
        return Ending(kind, f"A process ended with {own[-1].rstrip('.')}.")
    for rank, number in signals:
        which = f"The process of local rank {rank}" if rank >= 0 else "The first process"
        if number == _SIGKILL and memory_ran_out:
            return Ending(
                Kind.OUT_OF_MEMORY, f"{which} was killed by the kernel, because the machine ran out of memory."
            )
        return Ending(Kind.KILLED, f"{which} was killed by signal {number}.")
    if any(_ABSENT.search(line) for line in lines):
        return Ending(Kind.ABSENT, "Not all machines came to the rendezvous.")
    if errors:
        return Ending(Kind.PEER, f"A process lost another one: {errors[-1].rstrip('.')}.")
    return Ending(Kind.UNKNOWN, f"Its process ended with code {exit_code}, and its log names no exception.")


def count_memory_kills() -> int:
    """Return how many processes the kernel has killed on this machine because memory ran out; 0 if unknown."""
    count = 0
    for path in ("/proc/vmstat", "/sys/fs/cgroup/memory.events"):
        try:
            lines = Path(path).read_text().splitlines()
        except OSError:
            continue
        count += sum(int(line.split()[1]) for line in lines if line.split()[0] == "oom_kill")
    return count
