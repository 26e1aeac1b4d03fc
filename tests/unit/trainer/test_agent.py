"""Why a process went down is read off its log, and which process had a task off the name of its trainer."""

import socket
import sys

import pytest

from trainer.agent import make_owner, process_of
from trainer.task_process import last_error

TRACEBACK = """[rank0]: Traceback (most recent call last):
[rank0]:   File "trainer/images.py", line 41, in __call__
[rank0]:     raise ValueError("no such image")
[rank0]: ValueError: no such image
torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
============================================================
trainer.process FAILED
============================================================"""


@pytest.mark.parametrize(
    ("log", "said"),
    [
        (TRACEBACK, "[rank0]: ValueError: no such image"),
        ("KeyError: 'a'\ntorch.OutOfMemoryError: CUDA out of memory.", "torch.OutOfMemoryError: CUDA out of memory."),
        ('{"event": "checkpoint_saved"}', "its log names no exception."),
        ("", "its log names no exception."),
    ],
)
def test_the_last_exception_is_named(log: str, said: str) -> None:
    assert last_error(log) == said


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells one table of processes from another")
def test_only_a_process_of_this_machine_is_known_by_a_trainers_name() -> None:
    owner = make_owner(4711)
    assert process_of(owner) == 4711
    assert make_owner(4711) != owner, "the same id is given again"
    assert process_of(owner.replace(socket.gethostname(), "elsewhere")) is None
    another_container = owner[:-16] + "0" * 8 + owner[-8:]
    assert process_of(another_container) is None
    assert process_of("train@here:1:0123abcd") is None, "an older version's"
