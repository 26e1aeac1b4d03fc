"""The log files of a stack are limited in size and number, and crashes are kept."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from deploy.cli import stack
from deploy.cli.console import ask
from deploy.stack import crashes, state
from deploy.stack.folder import Folder
from deploy.stack.logs import Limits, Log
from shared.errors import InvalidSettings
from shared.settings import LogFileSettings

SMALL = 1000


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    made = Folder(tmp_path / "data")
    made.make()
    return made


def fill(log: Log, word: str) -> None:
    with log.open() as writer:
        writer.write(word.encode() * (SMALL + 1))
    log.bound()


@pytest.mark.parametrize("files", [1, 2, 3])
def test_no_more_files_are_kept_than_set(tmp_path: Path, files: int) -> None:
    log = Log(tmp_path / "noisy.log", Limits(SMALL, files))
    for word in "abcde":
        fill(log, word)
    with log.open() as writer:
        writer.write(b"last words\n")
    kept = {path.name: path.read_text()[:1] for path in tmp_path.iterdir()}
    assert kept == {"noisy.log": "l"} | {f"noisy.log.{number}": "edcba"[number - 1] for number in range(1, files)}
    assert log.tail() == ["last words"]


def test_a_small_file_is_not_rotated(tmp_path: Path) -> None:
    log = Log(tmp_path / "quiet.log", Limits(SMALL, 3))
    log.say("started")
    log.bound()
    assert [path.name for path in tmp_path.iterdir()] == ["quiet.log"]
    time, _, words = log.path.read_text().partition(" ")
    assert words == "started\n"
    assert datetime.now(UTC) >= datetime.fromisoformat(time)


def test_the_limits_are_settings_that_need_no_server() -> None:
    read = LogFileSettings.from_env({"CARINA_LOG_FILE_BYTES": "100000", "CARINA_LOG_FILES": "9"})
    assert (read.log_file_bytes, read.log_files) == (100_000, 9)
    with pytest.raises(InvalidSettings, match="CARINA_LOG_FILES"):
        LogFileSettings.from_env({"CARINA_LOG_FILES": "0"})


def crash(number: int, name: str = "detect") -> crashes.Crash:
    return crashes.Crash(name, f"2026-01-02T03:04:{number % 60:02}.000+00:00", f"exit code {number}", 12.5)


def test_the_latest_crashes_are_kept(folder: Folder) -> None:
    for number in range(crashes.MAX_CRASHES + 5):
        crashes.record(folder, crash(number))
    assert crashes.read(folder) == [crash(number) for number in range(5, crashes.MAX_CRASHES + 5)]


def test_ps_shows_crashes_also_when_nothing_runs(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    crashes.record(folder, crash(1))
    with folder.crash_file.open("a") as file:
        file.write('{"name": "det')  # a power failure
    stack.ps(folder.path)
    said = capsys.readouterr().out
    assert said.startswith("Nothing runs in ")
    assert said.splitlines()[-1].split() == ["detect", "2026-01-02", "03:04:01Z", "12", "s", "exit", "code", "1"]


def test_ps_shows_the_crashes_of_each_process_as_json(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("detect", "api"):
        crashes.record(folder, crash(1, name))
    state.write(folder, [state.Entry("detect", None, state.State.BACKOFF, "2026-01-02T03:04:05+00:00", 1, "")])
    ask(as_json=True, quiet=False)
    try:
        stack.ps(folder.path)
    finally:
        ask(as_json=False, quiet=False)
    (row,) = json.loads(capsys.readouterr().out)
    assert row["restarts"] == 1
    assert row["crashes"] == [{"at": "2026-01-02T03:04:01.000+00:00", "reason": "exit code 1", "ran_s": 12.5}]
