"""What `make` does before every target: `.venv` is installed once, and each obstacle is told in one sentence."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from deploy.document_settings import ROOT

#: A project as ours, but small, whose editable wheel needs nothing to be built.
PROJECT = """
[project]
name = "carina"
version = "0.1.0"
[project.optional-dependencies]
all = ["torch>=2"]
dev = ["tool"]
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
"""
BACKEND = '''
import zipfile
METADATA = """Metadata-Version: 2.1
Name: carina
Version: 0.1.0
Provides-Extra: all
Provides-Extra: dev
Requires-Dist: torch>=2; extra == "all"
Requires-Dist: tool; extra == "dev"
"""
WHEEL = """Wheel-Version: 1.0
Root-Is-Purelib: true
Tag: py3-none-any
"""
def build_editable(folder, config_settings=None, metadata_directory=None):
    name = "carina-0.1.0-py3-none-any.whl"
    with zipfile.ZipFile(f"{folder}/{name}", "w") as wheel:
        wheel.writestr("carina-0.1.0.dist-info/METADATA", METADATA)
        wheel.writestr("carina-0.1.0.dist-info/WHEEL", WHEEL)
        wheel.writestr("carina-0.1.0.dist-info/RECORD", "")
    return name
'''
NO_INDEX = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": ""}
DEAF_INDEX = {"PIP_INDEX_URL": "http://127.0.0.1:1/", "PIP_RETRIES": "1"}


class Checkout:
    """A folder with what the script reads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "deploy").mkdir(parents=True)
        shutil.copy(ROOT / "deploy/install.sh", path / "deploy")
        (path / "deploy/constraints.txt").write_text("torch==2.1\ntool==1.0\n")
        (path / "pyproject.toml").write_text(PROJECT)
        (path / "backend.py").write_text(BACKEND)

    def install(
        self, extras: str = "all", path: str = "/usr/bin:/bin", **environ: str
    ) -> subprocess.CompletedProcess[str]:
        """Run the script, as `make` does."""
        plain = {"PATH": path, "PYTHON": sys.executable, "PIP_CONFIG_FILE": "/dev/null", "INSTALL_GB": "0"}
        command = ["/bin/sh", "deploy/install.sh", extras]
        return subprocess.run(
            command, cwd=self.path, env=plain | environ, capture_output=True, text=True, timeout=250, check=False
        )

    def refusal(self, extras: str = "all", **environ: str) -> str:
        """What is said when it cannot install: one sentence."""
        done = self.install(extras, **environ)
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert line.startswith("Cannot install Carina: ")
        assert not (self.path / ".venv/tmp").exists()
        return line.removeprefix("Cannot install Carina: ")

    def versions(self) -> dict[str, str]:
        """The installed packages."""
        found = (self.path / ".venv/lib").glob("python*/site-packages/*.dist-info")
        return dict(folder.name.removesuffix(".dist-info").split("-") for folder in found)


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path / "a b é")


@pytest.fixture
def wheels(tmp_path: Path) -> dict[str, str]:
    """Wheels instead of an index; yields the variables that point pip there."""
    wheel(tmp_path / "wheels", "torch", "2.1")
    wheel(tmp_path / "wheels", "tool", "1.0")
    return NO_INDEX | {"PIP_FIND_LINKS": str(tmp_path / "wheels")}


def wheel(folder: Path, name: str, version: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as made:
        made.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        made.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        made.writestr(f"{info}/RECORD", "")


def python_that(tmp_path: Path, does: str) -> str:
    """A Python that is not as it should be."""
    path = tmp_path / "python"
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "import sys; {does}; exec(sys.argv[2])" "$@"\n')
    path.chmod(0o755)
    return str(path)


def test_installs_once_and_the_tools_only_when_they_are_wanted(checkout: Checkout, wheels: dict[str, str]) -> None:
    first = checkout.install(**wheels)
    assert first.returncode == 0, first.stdout + first.stderr
    assert first.stdout.startswith("installing into .venv")
    assert {"carina": "0.1.0", "torch": "2.1"}.items() <= checkout.versions().items()
    assert "tool" not in checkout.versions()
    assert not (checkout.path / ".venv/tmp").exists()
    again = checkout.install(**DEAF_INDEX)
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")
    # The index is down: what was there still serves.
    said = checkout.refusal("all,dev", **DEAF_INDEX)
    assert said.startswith("the package index does not answer; check the network")
    assert checkout.install(**DEAF_INDEX).stdout == ""
    tools = checkout.install("all,dev", **wheels)
    assert (tools.returncode, tools.stdout) == (0, "bringing .venv up to date\n"), tools.stderr
    assert checkout.versions()["tool"] == "1.0"
    assert checkout.install(**DEAF_INDEX).stdout == ""
    # Reached by another path, as through a link, it is the same.
    (checkout.path.parent / "link").symlink_to(checkout.path)
    link = subprocess.run(
        ["sh", checkout.path.parent / "link/deploy/install.sh", "all"], capture_output=True, check=True
    )
    assert link.stdout == b""
    (checkout.path / "deploy/constraints.txt").write_text("torch==2.2\n")
    wheel(Path(wheels["PIP_FIND_LINKS"]), "torch", "2.2")
    assert checkout.install(**wheels).returncode == 0
    assert checkout.versions()["torch"] == "2.2"


def test_a_venv_that_cannot_be_used_any_more_is_made_anew(checkout: Checkout, wheels: dict[str, str]) -> None:
    assert checkout.install(**wheels).returncode == 0
    # Without a Python to make another with, it says why and removes nothing.
    old = checkout.path
    checkout.path = old.rename(old.with_name("moved"))
    assert checkout.install(PYTHON="/nowhere").stdout == f"making .venv anew, because it was made in {old}\n"
    checkout.path = checkout.path.rename(old)
    assert checkout.install(PYTHON="/nowhere").stdout == ""
    (old / ".venv/installing").touch()  # as when the power failed
    assert checkout.install(PYTHON="/nowhere").stdout == "making .venv anew, because it was not finished\n"
    (old / ".venv/installing").unlink()
    (old / ".venv/bin/python").unlink()
    (old / ".venv/bin/python").symlink_to("/nowhere/python3")
    done = checkout.install(**wheels)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("making .venv anew, because it has lost its Python\ninstalling into .venv")
    assert checkout.install(**DEAF_INDEX).stdout == ""


def test_pytorch_comes_from_the_index_that_is_named(checkout: Checkout, wheels: dict[str, str], tmp_path: Path) -> None:
    wheel(tmp_path / "cpu/torch", "torch", "2.1+cpu")
    (tmp_path / "cpu/torch/index.html").write_text('<a href="torch-2.1+cpu-py3-none-any.whl">torch</a>')
    # `PIP_NO_INDEX` would turn this index off as well.
    index = {"PIP_INDEX_URL": (tmp_path / "empty").as_uri(), "PIP_FIND_LINKS": wheels["PIP_FIND_LINKS"]}
    done = checkout.install(TORCH_INDEX=(tmp_path / "cpu").as_uri(), **index)
    assert done.returncode == 0, done.stderr
    assert checkout.versions()["torch"] == "2.1+cpu"
    # It is remembered.
    assert checkout.install("all,dev", **index).returncode == 0
    assert checkout.versions()["torch"] == "2.1+cpu"
    assert checkout.install(**DEAF_INDEX).stdout == ""
    other = checkout.install(TORCH_INDEX="https://other.example/", PYTHON="/nowhere")
    assert other.stdout == "making .venv anew, because it has another PyTorch\n"


def test_says_which_wheel_is_missing(checkout: Checkout) -> None:
    assert "the package index has no wheel of torch==2.1 for this Python and machine;" in checkout.refusal(**NO_INDEX)


def test_says_which_pythons_are_too_old(checkout: Checkout, tmp_path: Path) -> None:
    old = python_that(tmp_path, "sys.version_info = (3, 9, 2)")
    said = checkout.refusal(PYTHON=old)
    assert said.startswith(f"it needs Python 3.11 to 3.14 with its venv module: {old} is 3.9; ")
    assert not (checkout.path / ".venv").exists()


def test_says_that_the_venv_module_is_missing(checkout: Checkout, tmp_path: Path) -> None:
    bare = python_that(tmp_path, "sys.modules['ensurepip'] = None")
    assert "without its venv module (Debian, Ubuntu: apt install python3-venv); " in checkout.refusal(PYTHON=bare)


def test_says_that_there_is_no_python(checkout: Checkout, tmp_path: Path) -> None:
    for name in ("dirname", "sed", "awk", "tail"):
        (tmp_path / name).symlink_to(shutil.which(name) or "")
    assert "there is no Python on PATH" in checkout.refusal(PYTHON="", path=str(tmp_path))


def test_says_how_much_disk_space_it_needs(checkout: Checkout) -> None:
    assert checkout.refusal(INSTALL_GB="10000000").startswith("it needs 10000000 GB of free disk space in ")
    assert not (checkout.path / ".venv").exists()


def test_no_other_folder_is_touched(tmp_path: Path) -> None:
    """With CDPATH the shell's `cd` goes to a folder of the same name elsewhere."""
    checkout, other = Checkout(tmp_path / "checkout"), tmp_path / "other"
    (other / "deploy").mkdir(parents=True)
    (other / ".venv").mkdir()
    checkout.refusal(CDPATH=str(other), **NO_INDEX)
    assert list((other / ".venv").iterdir()) == []
