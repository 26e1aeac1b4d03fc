"""An error that another try would meet again fails its task at once; others are tried again."""

import errno
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from pydantic import BaseModel

from shared.errors import CarinaError, ObjectCorrupt, ObjectMissing, TransientError
from shared.processes.scratch import FolderNotOurs
from trainer import process


class Empty(BaseModel):
    """Cannot be read from nothing."""

    needed: int


@pytest.mark.parametrize(
    ("error", "code", "again"),
    [
        (ObjectMissing(), "material_missing", False),
        (ObjectCorrupt(), "object_corrupt", True),
        (FolderNotOurs(), "trainer_unfit", True),
        (OSError(errno.ENOSPC, "No space left"), "disk_full", True),
        (ValueError("not a box"), "task_defect", False),
        (KeyError("no such class"), "task_defect", False),
        (AttributeError("gone"), "task_defect", False),
        (AssertionError(), "task_defect", False),
        (ZeroDivisionError(), "task_defect", False),
    ],
)
def test_each_error_is_told_by_its_kind(
    monkeypatch: pytest.MonkeyPatch, error: Exception, code: str, again: bool
) -> None:
    with pytest.raises(CarinaError) as met:
        process._run("any", task_that_raises(monkeypatch, error))
    assert (met.value.code, isinstance(met.value, TransientError)) == (code, again)


def test_a_config_of_another_version_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="needed") as unreadable:
        Empty.model_validate({})
    with pytest.raises(process.UnreadableTask):
        process._run("any", task_that_raises(monkeypatch, unreadable.value))


@pytest.mark.parametrize("error", [RuntimeError("CUDA error"), ConnectionError("reset"), MemoryError()])
def test_what_may_heal_ends_the_process(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    with pytest.raises(type(error)):
        process._run("any", task_that_raises(monkeypatch, error))


def task_that_raises(monkeypatch: pytest.MonkeyPatch, error: Exception) -> Any:
    """A task whose module raises an error."""
    module = ModuleType("raising")

    def run(_: object) -> None:
        raise error

    monkeypatch.setattr(module, "run", run, raising=False)
    monkeypatch.setitem(sys.modules, "raising", module)
    monkeypatch.setitem(process.MODULES, "any", "raising")
    return SimpleNamespace(in_its_project=lambda: None)
