"""The README's story, told by running it: every command and every line of Python in it, from `make setup` on."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner

from deploy.cli import app
from deploy.stack import env_file
from tests.conftest import REPOSITORY
from tests.requirements import end_without
from tests.waiting import DEADLINE_S, wait_until_gone

README = (REPOSITORY / "README.md").read_text()
WAYS_IN = (REPOSITORY / "api" / "README.md").read_text()
STAYS_UP = "The stack stays up"


def blocks(language: str) -> list[str]:
    """Return the README's fenced blocks in a language. `console` blocks need a GPU, a checkpoint or Docker."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like a fresh checkout that has been set up, but with no data folder yet."""
    if not (REPOSITORY / ".venv" / "ready").exists():
        end_without("the .venv that `make setup` makes", "make setup")
    folder = tmp_path_factory.mktemp("checkout")
    for path in REPOSITORY.iterdir():
        if path.name not in (".carina", ".git"):
            (folder / path.name).symlink_to(path)
    return folder


@pytest.fixture(scope="module")
def demo(checkout: Path) -> Iterator[str]:
    """Run `make setup` and `make demo` as the README says; yield what the demo printed, and leave by Ctrl-C."""
    setup, demo = blocks("sh")[0].splitlines()
    assert (setup, demo) == ("make setup", "make demo")
    subprocess.run(setup.split(), cwd=checkout, check=True, timeout=DEADLINE_S)
    # The options of a `make test ARGS=...` are not for this one.
    ours = ("CARINA_", "MAKE", "ARGS")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    with subprocess.Popen(
        demo.split(),
        cwd=checkout,
        env=clean | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as running:
        assert running.stdout is not None
        said: list[str] = []
        for line in running.stdout:
            said.append(line)
            if STAYS_UP in line:
                break
        children = psutil.Process(running.pid).children(recursive=True)
        yield "".join(said)
        os.killpg(running.pid, signal.SIGINT)
        running.communicate(timeout=DEADLINE_S)
    wait_until_gone(children)  # Ctrl-C leaves no process behind


def test_the_demo_loses_nothing_and_finds_most_of_what_was_planted(demo: str) -> None:
    assert STAYS_UP in demo, demo
    assert "nothing was lost: each of 28 files has its outcome" in demo
    found, planted = map(int, re.findall(r"recall: (\d+) of (\d+) planted", demo)[0])
    assert planted >= 24
    assert found / planted >= 0.5


def run(commands: list[str], checkout: Path) -> str:
    """Run shell commands as a reader would, and return what they printed."""
    script = "\n".join(["set -eu", *commands])
    done = subprocess.run(["bash", "-c", script], cwd=checkout, capture_output=True, text=True, timeout=DEADLINE_S)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_shell_command_runs(demo: str, checkout: Path) -> None:
    assert STAYS_UP in demo, demo
    printed = run([block for block in blocks("sh")[1:] if "curl " not in block], checkout)
    assert re.search(r"duplicate[^{]* 1 ", printed), "the demo has sent these already"


@pytest.mark.needs("curl")
def test_every_request_of_curl_is_answered(demo: str, checkout: Path) -> None:
    assert STAYS_UP in demo, demo
    requests = [block for block in blocks("sh") if "curl " in block]
    assert requests
    assert '"outcome":"duplicate"' in run(requests, checkout).replace(" ", "")


def test_the_python_examples_print_findings_and_outcomes(demo: str, checkout: Path) -> None:
    assert STAYS_UP in demo, demo
    environ = os.environ | env_file.read(checkout / ".carina" / "env") | {"PYTHONPATH": str(REPOSITORY)}
    printed = []
    for block in blocks("python"):
        command = [sys.executable, "-c", block]
        done = subprocess.run(command, cwd=checkout, env=environ, capture_output=True, text=True, timeout=DEADLINE_S)
        assert done.returncode == 0, done.stderr
        printed.append(done.stdout)
    findings, outcomes = printed
    assert re.search(r"phantom-00.*\d\.\d\d \(", findings)
    assert re.search(r"^completed_with_errors ", outcomes), "some of the demo's files are bad"
    assert re.search(r"^\d+ duplicate [0-9a-f-]{36}$", outcomes, flags=re.MULTILINE)
    rejected = re.findall(r"^\d+ rejected:(\w+) None$", outcomes, flags=re.MULTILINE)
    assert sorted(rejected) == ["colour_image", "not_an_image", "unsupported_file_type"]


def test_every_command_that_is_documented_exists() -> None:
    commands = r"(?:^|`|\$ |--rm \w+ |=\w+ )carina ((?:model|key|worker|webhook) \w+|[\w-]+)"
    named = set(re.findall(commands, README + WAYS_IN, flags=re.MULTILINE))
    assert {"up", "submit", "model import", "key create", "webhook create", "dicom-listener"} <= named
    for command in sorted(named):
        assert CliRunner().invoke(app, [*command.split(), "--help"]).exit_code == 0, command
