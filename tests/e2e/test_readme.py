"""Runs every command and every line of Python in the README and in the pages of `docs/`, from `make demo` on."""

import json
import os
import re
import shutil
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
from tests.requirements import REPOSITORY, end_without
from tests.waiting import DEADLINE_S, wait_until_gone

README = (REPOSITORY / "README.md").read_text()
#: The pages whose `sh` and `python` blocks run after those of the README, in the same shell.
RUN_PAGES = ("usage.md", "dicom.md")
PAGES = {path.name: path.read_text() for path in sorted((REPOSITORY / "docs").glob("*.md"))}
MAKE_DEMO = "make demo"
MAKE_TEST = "make test"
STAYS_UP = "The stack stays up"
BLOCK = "=== the next block ==="
#: Sends what the README's commands for curl send, on a machine without it.
CURL = """
import sys
import httpx

headers, files, url, arguments = {}, [], "", iter(sys.argv[1:])
for argument in arguments:
    match argument:
        case "-sS":
            pass
        case "-H":
            name, _, value = next(arguments).partition(": ")
            headers[name] = value
        case "-F":
            field, _, path = next(arguments).partition("=@")
            files.append((field, open(path, "rb")))
        case _:
            url = argument
print(httpx.request("POST" if files else "GET", url, headers=headers, files=files or None, trust_env=False).text)
"""


def blocks(text: str) -> list[tuple[str, str]]:
    """Return the fenced blocks that can run here, by language. `console` blocks need a GPU, files or Docker."""
    return re.findall(r"^```(sh|python)\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def clean_environment() -> dict[str, str]:
    """The environment without what a `make test ARGS=...` around this test has put there."""
    ours = ("CARINA_", "MAKE", "MFLAGS", "ARGS", "PYTEST_")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like a fresh checkout that has been set up, but with no data folder yet."""
    if not (REPOSITORY / ".venv" / "ready").exists():
        end_without("the .venv that `make setup` makes", "make setup")
    folder = tmp_path_factory.mktemp("check out")
    for path in REPOSITORY.iterdir():
        if path.name not in (".carina", ".git"):
            (folder / path.name).symlink_to(path)
    return folder


@pytest.fixture(scope="module")
def demo(checkout: Path) -> Iterator[str]:
    """Run `make demo` as the README says; yield what the demo printed, and leave by Ctrl-C."""
    with subprocess.Popen(
        MAKE_DEMO.split(),
        cwd=checkout,
        env=clean_environment() | {"PYTHONUNBUFFERED": "1"},
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


def test_the_readme_begins_with_two_commands() -> None:
    assert [block for _, block in blocks(README)[:2]] == [f"{MAKE_DEMO}\n", f"{MAKE_TEST}\n"]


def test_make_test_runs_the_tests(checkout: Path) -> None:
    chosen = "ARGS=-q -n 0 -p no:cacheprovider tests/unit/deploy/test_settings_documented.py"
    command = [*MAKE_TEST.split(), chosen]
    done = subprocess.run(
        command, cwd=checkout, env=clean_environment(), capture_output=True, text=True, timeout=3 * DEADLINE_S
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\b4 passed\b", done.stdout), done.stdout


def test_the_demo_loses_nothing_and_finds_most_of_what_was_planted(demo: str) -> None:
    assert STAYS_UP in demo, demo
    assert "nothing was lost: each of 28 files has its outcome" in demo
    found, planted = map(int, re.findall(r"recall: (\d+) of (\d+) planted", demo)[0])
    assert planted >= 24
    assert found / planted >= 0.5


def test_the_second_terminal_runs_every_block_in_order(demo: str, checkout: Path, tmp_path: Path) -> None:
    """One session of bash, with nothing of ours in its environment: what the README needs it has to say."""
    assert STAYS_UP in demo, demo
    home = {name: os.environ[name] for name in ("HOME", "LANG", "TMPDIR") if name in os.environ}
    path = os.environ["PATH"].split(os.pathsep)
    path = [folder for folder in path if not (Path(folder) / "carina").exists()]
    if shutil.which("curl") is None:
        (tmp_path / "curl.py").write_text(CURL)
        (tmp_path / "curl").write_text(f'#!/bin/sh\nexec "{sys.executable}" "{tmp_path}/curl.py" "$@"\n')
        (tmp_path / "curl").chmod(0o755)
        path.append(str(tmp_path))
    session = ["set -eu"]
    in_order = blocks(README)[2:] + [block for page in RUN_PAGES for block in blocks(PAGES[page])]
    for language, block in in_order:
        session.append(f"echo '{BLOCK}'")
        session.append(f"python - <<'END OF BLOCK'\n{block}END OF BLOCK" if language == "python" else block)
    done = subprocess.run(
        ["bash", "--norc", "-c", "\n".join(session)],
        cwd=checkout,
        env=home | {"PATH": os.pathsep.join(path)},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    _, commands, http, findings, doctor, outcomes, _, dicomweb = done.stdout.split(f"{BLOCK}\n")[1:]
    assert "PostgreSQL" in doctor
    assert re.search(r"duplicate[^{]* 1 ", commands), "the demo has sent these already"
    assert '"outcome":"duplicate"' in http.replace(" ", "")
    assert re.search(r"phantom-00.*\d\.\d\d \(", findings)
    assert re.search(r"^completed_with_errors ", outcomes), "some of the demo's files are bad"
    assert re.search(r"^\d+ duplicate [0-9a-f-]{36}$", outcomes, flags=re.MULTILINE)
    rejected = re.findall(r"^\d+ rejected:(\w+) None$", outcomes, flags=re.MULTILINE)
    assert sorted(rejected) == ["colour_image", "not_an_image", "unsupported_file_type"]
    assert "00081199" in dicomweb, "STOW-RS lists what it has stored"


@pytest.mark.parametrize("shell", ["bash", "dash", "sh"])
def test_the_env_file_can_be_sourced_from_a_folder_with_spaces(tmp_path: Path, shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not on this machine")
    (tmp_path / "two words").mkdir()
    told = {"CARINA_API_KEY": "it's; $HOME `x` \\ #", "CARINA_S3_BUCKET": "carina", "CARINA_API_URL": "http://h:1/a b"}
    env_file.write(tmp_path / "two words" / "env", told)
    script = "set -eu; . './two words/env'; exec python3 -c 'import json, os; print(json.dumps(dict(os.environ)))'"
    plain = {"PATH": os.environ["PATH"]}
    done = subprocess.run([shell, "-c", script], cwd=tmp_path, env=plain, capture_output=True, text=True, check=True)
    seen = json.loads(done.stdout)
    assert {name: seen[name] for name in told} == told == env_file.read(tmp_path / "two words" / "env")


def test_the_env_file_is_read_with_and_without_export(tmp_path: Path) -> None:
    (tmp_path / "env").write_text("# of an earlier version\nCARINA_API_KEY=a\n\nexport CARINA_S3_BUCKET='b c'\n")
    assert env_file.read(tmp_path / "env") == {"CARINA_API_KEY": "a", "CARINA_S3_BUCKET": "b c"}


def test_no_block_that_runs_here_names_a_port_of_its_own() -> None:
    assert [block for text in (README, *PAGES.values()) for _, block in blocks(text) if ":8080" in block] == []


def test_only_the_pages_that_are_run_have_blocks_to_run() -> None:
    assert {name for name, text in PAGES.items() if blocks(text)} == {*RUN_PAGES}


def test_every_command_that_is_documented_exists() -> None:
    commands = r"(?:^|`|\$ |--rm \w+ |=\w+ )carina ((?:model|key|worker|webhook) \w+|[\w-]+)"
    named = set(re.findall(commands, "\n".join([README, *PAGES.values()]), flags=re.MULTILINE))
    assert {"up", "submit", "model import", "key create", "webhook create", "dicom-listener"} <= named
    for command in sorted(named):
        assert CliRunner().invoke(app, [*command.split(), "--help"]).exit_code == 0, command
