"""Why a process went down is read off its log."""

import pytest

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
