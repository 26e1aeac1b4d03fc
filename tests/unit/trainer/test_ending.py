"""Why the processes of an attempt ended is read from their log and exit code; the cause comes before its effects."""

import pytest

from trainer.ending import Ending, Kind, read_ending

TRACEBACK = """[rank0]: Traceback (most recent call last):
[rank0]:   File "trainer/images.py", line 41, in __call__
[rank0]:     raise ValueError("no such image")
[rank0]: ValueError: no such image
torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
============================================================
trainer.process FAILED
============================================================"""
PEER = "[rank0]: RuntimeError: [gloo/transport/tcp/pair.cc:534] Connection closed by peer [10.0.0.2]:29373"
FAILED = "E1129 failed (exitcode: {}) local_rank: 1 (pid: 4711) of binary: python"
CHILD = "torch.distributed.elastic.multiprocessing.errors.ChildFailedError:"
JOIN = "torch.distributed.DistStoreError: Timed out after 61 seconds waiting for clients. 1/2 clients joined."


@pytest.mark.parametrize(
    ("log", "code", "kind", "reason"),
    [
        (TRACEBACK, 1, Kind.FAILED, "ValueError: no such image"),
        (f"KeyError: 'a'\n{PEER}\n{CHILD}", 1, Kind.FAILED, "KeyError: 'a'"),
        ("torch.OutOfMemoryError: CUDA out of memory.", 1, Kind.OUT_OF_MEMORY, "CUDA out of memory"),
        (f"{PEER}\n{FAILED.format(-9)}\n{CHILD}", 1, Kind.KILLED, "local rank 1 was killed by signal 9"),
        (f"{FAILED.format(-11)}\n{CHILD}", 1, Kind.KILLED, "signal 11"),
        (f"{PEER}\n{FAILED.format(1)}\n{CHILD}", 1, Kind.PEER, "Connection closed by peer"),
        (JOIN, 1, Kind.ABSENT, "Not all machines came"),
        ("", -9, Kind.KILLED, "The first process was killed by signal 9"),
        ('{"event": "checkpoint_saved"}', 1, Kind.UNKNOWN, "its log names no exception"),
        ("", 3, Kind.UNKNOWN, "code 3"),
    ],
)
def test_the_cause_is_named(log: str, code: int, kind: Kind, reason: str) -> None:
    ending = read_ending(log, code)
    assert ending.kind == kind
    assert reason in ending.reason


def test_a_kill_by_the_kernel_is_a_lack_of_memory() -> None:
    ending = read_ending(FAILED.format(-9), 1, memory_ran_out=True)
    assert ending.kind == Kind.OUT_OF_MEMORY
    assert "ran out of memory" in ending.reason
    assert read_ending(FAILED.format(-11), 1, memory_ran_out=True).kind == Kind.KILLED


def test_of_several_machines_endings_the_cause_comes_first() -> None:
    victim, cause = Ending(Kind.PEER, "It lost another one."), Ending(Kind.KILLED, "It was killed.")
    assert min(victim.at("10.0.0.1"), cause.at("10.0.0.2"), key=lambda ending: ending.kind) == Ending(
        Kind.KILLED, "On 10.0.0.2: It was killed."
    )
