"""The one writable folder that a process needs, and what is said where it is missing."""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from shared.processes import process_state
from shared.processes.scratch import (
    FolderNotOurs,
    ScratchUnwritable,
    is_private,
    make_private,
    replace_file,
    use_scratch,
)
from tests.read_only import sealed
from tests.requirements import REPOSITORY

#: Where the libraries that keep caches say that they keep them.
_CACHES = """
import tempfile
from shared.processes.scratch import use_scratch
use_scratch()
import matplotlib
from matplotlib.figure import Figure
from torch._inductor.runtime.cache_dir_utils import cache_dir
with tempfile.TemporaryFile() as file:
    Figure().savefig(file)
print(tempfile.gettempdir(), matplotlib.get_configdir(), matplotlib.get_cachedir(), cache_dir(), sep="\\n")
"""


@pytest.fixture(autouse=True)
def _leave_tempfile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", tempfile.tempdir)


def test_takes_the_folder_that_is_named(tmp_path: Path) -> None:
    environ = {"TMPDIR": str(tmp_path), "MPLCONFIGDIR": "/operators/own"}
    assert use_scratch(environ) == tmp_path
    assert tempfile.gettempdir() == str(tmp_path)
    assert environ["MPLCONFIGDIR"] == "/operators/own"
    assert Path(environ["XDG_CACHE_HOME"]).is_relative_to(tmp_path)
    assert use_scratch(environ) == tmp_path  # again, as a process' child does


@pytest.mark.parametrize("place", ["missing", "file"])
def test_names_a_folder_that_cannot_be_written(place: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    before = tempfile.tempdir
    with pytest.raises(ScratchUnwritable, match=f"{tmp_path / place}, cannot be written .*: set TMPDIR to"):
        use_scratch({"TMPDIR": str(tmp_path / place)})
    assert tempfile.tempdir == before


def test_takes_no_cache_that_others_may_write(tmp_path: Path) -> None:
    own = tmp_path / f"carina-{os.getuid()}"
    own.mkdir()
    own.chmod(0o777)
    with pytest.raises(ScratchUnwritable, match=f"{own}, cannot be written"):
        use_scratch({"TMPDIR": str(tmp_path)})
    own.rmdir()
    own.symlink_to(tmp_path)
    with pytest.raises(ScratchUnwritable, match="it belongs to somebody else"):
        use_scratch({"TMPDIR": str(tmp_path)})


def test_a_private_folder_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    folder = make_private(tmp_path / "a" / "b")
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o755)  # by an earlier version, or by hand
    assert make_private(folder).stat().st_mode & 0o777 == 0o700
    assert is_private(folder)


@pytest.mark.parametrize("kind", ["link", "dangling link", "file", "open to others"])
def test_a_folder_that_others_could_have_planted_is_refused(kind: str, tmp_path: Path) -> None:
    folder, target = tmp_path / "cache", tmp_path / "target"
    match kind:
        case "link":
            target.mkdir(0o700)
            folder.symlink_to(target)
        case "dangling link":
            folder.symlink_to(target)
        case "file":
            folder.write_text("")
        case _:
            folder.mkdir()
            folder.chmod(0o777)
    with pytest.raises(FolderNotOurs, match=r"or is a link\. Please name another one.$"):
        make_private(folder, "name another one")
    assert not is_private(folder)
    assert not target.exists() or not list(target.iterdir())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes a folder of another user")
def test_the_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    for name in ("cache", f"carina-{os.getuid()}"):
        (tmp_path / name).mkdir(0o700)
        os.chown(tmp_path / name, 65534, 65534)
    with pytest.raises(FolderNotOurs, match="it belongs to somebody else"):
        make_private(tmp_path / "cache")
    with pytest.raises(ScratchUnwritable, match="it belongs to somebody else"):
        use_scratch({"TMPDIR": str(tmp_path)})
    assert not is_private(tmp_path / "cache")


def test_a_file_is_replaced_and_never_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("untouched")
    (tmp_path / "file").symlink_to(tmp_path / "target")
    replace_file(tmp_path / "file", b"new")
    assert (tmp_path / "target").read_text() == "untouched"
    assert not (tmp_path / "file").is_symlink()
    assert (tmp_path / "file").read_bytes() == b"new"
    assert (tmp_path / "file").stat().st_mode & 0o077 == 0
    assert len(list(tmp_path.iterdir())) == 2


def test_nothing_else_makes_temporary_files_by_itself() -> None:
    """Or it would choose a name in a folder that every user may write to."""
    forbidden = re.compile(r"\btempfile\b|\bgettempdir\b|\bmkstemp\b|[\"']/(?:var/)?tmp\b|/dev/shm")
    found = {
        f"{path.relative_to(REPOSITORY)}:{number}"
        for room in ("api", "deploy", "shared", "trainer", "workers")
        for path in (REPOSITORY / room).rglob("*.py")
        if path != REPOSITORY / "shared" / "processes" / "scratch.py"
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if forbidden.search(line)
    }
    assert found == set()


def test_the_state_of_a_process_is_neither_kept_nor_read_in_a_folder_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.delenv(process_state.VARIABLE, raising=False)
    (planted := tmp_path / "planted").mkdir()
    own = tmp_path / f"carina-{os.getuid()}"
    own.symlink_to(planted)
    with pytest.raises(FolderNotOurs):
        process_state.StateFile("notify")
    assert not list(planted.iterdir())
    own.unlink()
    with process_state.StateFile("notify"):
        assert [state.process for _, state in process_state.find()] == ["notify"]
        own.chmod(0o777)
        assert process_state.find() == []


def test_libraries_keep_their_caches_there(tmp_path: Path) -> None:
    command = sealed(tmp_path, [sys.executable, "-W", "error", "-c", _CACHES])
    environ = {"PATH": os.environ["PATH"], "HOME": "/root", "TMPDIR": str(tmp_path)}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    for place in done.stdout.splitlines():
        assert Path(place).is_relative_to(tmp_path)


def test_a_process_without_it_says_so_and_ends(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    environ = {"PATH": os.environ["PATH"], "HOME": "/root", "TMPDIR": "/var/tmp"}
    for command in (["api"], ["worker", "prepare"], ["worker", "detect"], ["beat"], ["trainer"], ["dicom-listener"]):
        argv = sealed(scratch, [sys.executable, "-m", "deploy.cli", *command])
        done = subprocess.run(argv, env=environ, capture_output=True, text=True, check=False)
        assert done.returncode == 5, done.stderr
        assert done.stderr == (
            "error scratch_unwritable: The folder for temporary files, /var/tmp, cannot be written "
            "(Read-only file system): set TMPDIR to a folder that this process may write to.\n"
        )
