"""The one writable folder that a process needs, and what is said where it is missing."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from shared.scratch import ScratchUnwritable, use_scratch
from tests.read_only import sealed

#: Where the libraries that keep caches say that they keep them.
_CACHES = """
import tempfile
from shared.scratch import use_scratch
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
