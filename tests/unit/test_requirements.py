"""A test that needs a program which is missing fails under CI, and is skipped and listed elsewhere."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.requirements import REPOSITORY

TESTS = """
import sys
import pytest
from tests import programs, requirements
from tests.requirements import needs

programs.PACKAGES |= {"nowhere": "nowhere-tools", "python3": "python3"}
requirements.FOLDERS["shared/nothing"] = programs.PLUGINS / "nothing"

@pytest.fixture
def expensive():
    pytest.exit("A fixture ran though the program is missing.", returncode=99)

@pytest.mark.needs("python3", "nowhere")
def test_mark(expensive): ...

def test_call():
    needs("nowhere")

def test_folder():
    needs("shared/nothing")

@pytest.mark.skipif(True, reason="another platform")
def test_platform(): ...

@pytest.mark.needs("python3")
def test_present():
    assert needs("python3").is_file()
"""


def run_tests(folder: Path, **environ: str) -> tuple[int, str]:
    """Run `TESTS` in a process of their own; return its exit code and output."""
    (folder / "test_some.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-p", "tests.requirements", "-p", "no:cacheprovider", "-q", "--rootdir"]
    clean = {name: value for name, value in os.environ.items() if name != "CI" and not name.startswith("PYTEST_")}
    done = subprocess.run(
        [*command, folder, folder],
        cwd=folder,
        env=clean | {"PYTHONPATH": str(REPOSITORY), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"} | environ,
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("ci", [{}, {"CI": ""}, {"CI": "false"}])
def test_outside_ci_it_is_skipped_and_listed(tmp_path: Path, ci: dict[str, str]) -> None:
    code, said = run_tests(tmp_path, **ci)
    assert code == 0, said
    assert "1 passed, 4 skipped" in said
    listed = re.findall(r"^ +(\d) tests? +(.*)$", said, flags=re.MULTILINE)
    assert sorted(listed) == [
        ("1", "../shared/nothing is missing: put that folder beside the checkout"),
        ("1", "another platform"),
        ("2", "nowhere is missing: apt install nowhere-tools"),
    ]


@pytest.mark.parametrize("ci", ["1", "true"])
def test_under_ci_it_fails_and_says_how_to_get_the_program(tmp_path: Path, ci: str) -> None:
    code, said = run_tests(tmp_path, CI=ci)
    assert code == 1, said
    assert "2 failed, 1 passed, 1 skipped, 1 error" in said
    assert said.count("nowhere is missing: apt install nowhere-tools") >= 2
    assert "../shared/nothing is missing" in said
    assert "    1 test   another platform" in said


# --- .ci/run ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def run_script(tmp_path: Path) -> Callable[..., list[str]]:
    """Run `.ci/run` with stand-ins for the commands that it calls; return the lines that they and it print."""

    def run(user_id: int, missing: str, apt_get: str = "true") -> list[str]:
        scripts = {"id": f"echo {user_id}", "python3": f"echo {missing}", "make": 'echo "make $*"', "sleep": ""}
        scripts |= {"apt-get": f'echo "apt-get $*"; {apt_get}'}
        for name, script in scripts.items():
            (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
            (tmp_path / name).chmod(0o755)
        done = subprocess.run(
            ["bash", REPOSITORY / ".ci" / "run"],
            env={"PATH": f"{tmp_path}:/usr/bin:/bin", "CI": "true"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        return done.stdout.splitlines()

    return run


def test_a_run_with_all_programs_installs_nothing(run_script: Callable[..., list[str]]) -> None:
    assert run_script(0, "") == ["make lint", "make test"]


def test_root_installs_the_missing_programs_first(run_script: Callable[..., list[str]]) -> None:
    said = run_script(0, "dcmtk nginx")
    assert [line.split()[1:] for line in said if line.startswith("apt-get")] == [
        ["-q", "update"],
        ["-qy", "--no-install-recommends", "install", "dcmtk", "nginx"],
    ]
    assert said[-2:] == ["make lint", "make test"]


def test_nothing_is_checked_where_installing_keeps_failing(run_script: Callable[..., list[str]]) -> None:
    said = run_script(0, "nginx", apt_get="false")
    assert sum(line == "apt-get -q update" for line in said) == 3
    assert not any(line.startswith("make") for line in said)


def test_an_ordinary_user_is_told_what_to_install(run_script: Callable[..., list[str]]) -> None:
    said = run_script(1000, "dcmtk nginx")
    assert said[0].endswith("sudo apt-get install dcmtk nginx")
    assert said[1:] == ["make lint", "make test"]
