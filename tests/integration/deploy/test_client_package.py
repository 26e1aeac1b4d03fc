"""`pip install carina` brings the client and the command line for it, and nothing of the servers."""

import os
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from deploy.document_settings import ROOT
from tests.integration.conftest import Keys, Server

ROOMS = ("api", "deploy", "shared", "trainer", "workers")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that is published, built from a copy: building writes into the folder."""
    folder = tmp_path_factory.mktemp("wheel")
    for room in ROOMS:
        shutil.copytree(ROOT / room, folder / "copy" / room, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / "copy")
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-index", "--no-build-isolation", "."]
    subprocess.run([*command, "-w", folder], cwd=folder / "copy", check=True)
    return next(folder.glob("carina-*.whl"))


@pytest.fixture(scope="module")
def base(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of a virtual environment with that wheel and the packages that it needs without any extra."""
    folder = tmp_path_factory.mktemp("base")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / "bin" / "python"
    (site,) = folder.glob("lib/python*/site-packages")
    pip = [sys.executable, "-m", "pip", "--python", python]
    subprocess.run([*pip, "install", "-q", "--no-deps", "--no-index", "--no-compile", wheel], check=True)
    with zipfile.ZipFile(wheel) as files:
        (metadata,) = (name for name in files.namelist() if name.endswith("METADATA"))
        lines = files.read(metadata).decode().splitlines()
    wanted = [line.removeprefix("Requires-Dist: ") for line in lines if line.startswith("Requires-Dist: ")]
    _copy_packages(wanted, site)
    return folder / "bin"


def _copy_packages(wanted: list[str], site: Path) -> None:
    """Copy packages and what these need from the environment of the tests, as pip would fetch them."""
    seen: set[str] = set()
    while wanted:
        requirement = Requirement(wanted.pop())
        # `extra` is none, so what only an extra needs is left out.
        if requirement.name in seen or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        seen.add(requirement.name)
        package = distribution(requirement.name)
        wanted += package.requires or []
        for file in package.files or ():
            if ".." not in file.parts and "__pycache__" not in file.parts:
                (site / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(Path(str(package.locate_file(file))), site / file)


def run(program: Path, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a program of the environment, away from the checkout."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CARINA_", "PYTHON"))}
    command = [str(program), *words]
    return subprocess.run(command, cwd="/", env=kept | environ, capture_output=True, text=True, check=False)


def test_every_room_says_that_it_is_typed(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as files:
        assert {f"{room}/py.typed" for room in ROOMS} <= set(files.namelist())


def test_the_client_works_with_the_base_packages_alone(base: Path, server: Server, keys: Keys) -> None:
    code = "import sys; from api.client import Carina; print(Carina(*sys.argv[1:]).queue().workers)"
    asked = run(base / "python", "-c", code, server.url, keys.both)
    assert (asked.stdout, asked.stderr) == ("[]\n", "")
    lacking = run(base / "python", "-c", "import sqlalchemy")
    assert "No module named 'sqlalchemy'" in lacking.stderr


def test_the_command_line_works_with_the_base_packages_alone(base: Path, server: Server, keys: Keys) -> None:
    said = run(base / "carina", "--help")
    assert said.returncode == 0, said.stderr
    for name in ("submit", "status", "findings", "train", "up"):
        assert f" {name} " in said.stdout
    settings = {"CARINA_API_URL": server.url, "CARINA_API_KEY": keys.both}
    for command in (["status"], ["studies"], ["webhook", "list"]):
        done = run(base / "carina", *command, "--json", **settings)
        assert (done.returncode, done.stderr) == (0, ""), command


@pytest.mark.parametrize(
    ("command", "extra"),
    [("up", "stack"), ("demo", "stack"), ("api", "api"), ("worker detect", "worker"), ("migrate", "server")],
)
def test_a_command_of_the_servers_says_which_extra_it_needs(base: Path, command: str, extra: str) -> None:
    done = run(base / "carina", *command.split())
    assert done.returncode == 1
    assert f"extra_missing: This command needs the extra `{extra}` (" in done.stderr
    assert f"pip install 'carina[{extra}]'" in done.stderr
