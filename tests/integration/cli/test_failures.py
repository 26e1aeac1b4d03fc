"""What a command says where it cannot work: one line with a hint, an exit code, and never a traceback."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deploy.cli import clients, main
from tests.every_command import every_command
from tests.integration.conftest import NOWHERE as SERVERS_NOWHERE
from tests.requirements import REPOSITORY

FAILED, USAGE, UNREACHABLE = 1, 2, 4
NOWHERE = SERVERS_NOWHERE | {"CARINA_API_URL": "http://127.0.0.1:1", "CARINA_API_KEY": "carina_x_y"}
#: They start what they need, have nothing to reach, or name every server.
LOCAL = {"up", "down", "ps", "demo", "doctor", "probe", "completion"}
#: They start before their servers, and wait for them.
WAITING = {"api", "dicom-listener", "worker", "trainer", "beat"}
Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Iterator[Run]:
    """Run a command in this process, in an empty folder and with these variables alone."""
    for name in [name for name in os.environ if name.startswith("CARINA_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(clients, "_FIRST_ANSWER_S", 0)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def call(*arguments: str, **variables: str) -> tuple[int, str]:
        if arguments[0] in ("up", "demo"):  # a stack ends all children of its process, which are this one's servers
            command = [sys.executable, "-m", "deploy.cli", *arguments]
            done = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, check=False)
            assert "Traceback" not in done.stderr, done.stderr
            return done.returncode, done.stdout + done.stderr
        with monkeypatch.context() as patched:
            for name, value in variables.items():
                patched.setenv(name, value)
            patched.setattr(sys, "argv", ["carina", *arguments])
            before = dict(os.environ)
            try:
                with pytest.raises(SystemExit) as ended:
                    main()
            finally:  # a command may set variables for its children
                os.environ.clear()
                os.environ.update(before)
        said = "".join(capsys.readouterr())
        assert "Traceback" not in said, said
        return int(ended.value.code or 0), said

    yield call
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def commands(tmp_path: Path) -> list[list[str]]:
    (tmp_path / "arguments").mkdir()
    found = [command for command in every_command(tmp_path / "arguments") if command[0] not in LOCAL]
    assert len(found) > 50
    return found


def is_one_error(said: str) -> bool:
    """One line that says what is wrong, and perhaps a hint below it; a progress bar may stand above."""
    before, _, after = said.partition("error ")
    return len(before.splitlines()) <= 1 and 1 <= len(after.splitlines()) <= 2


def test_without_settings_every_command_says_what_to_set_or_start(run: Run, commands: list[list[str]]) -> None:
    for command in commands:
        code, said = run(*command)
        assert code == USAGE, (command, said)
        if not said.lstrip().startswith(("Usage", "╭")):  # a file of the command line was looked at first
            assert is_one_error(said), said
            assert "not set" in said
            assert "carina up" in said


def test_a_server_that_is_down_is_named_with_exit_code_4(run: Run, commands: list[list[str]]) -> None:
    unreachable = []
    for command in commands:
        if command[0] in WAITING:
            continue
        code, said = run(*command, **NOWHERE)
        if code == UNREACHABLE:
            unreachable.append(command[0])
            assert is_one_error(said), (command, said)
            # A backup begins with the object store, the others with the API or the database.
            assert ("cannot be reached" if command[0] == "backup" else "does not answer") in said
        else:
            assert code in (FAILED, USAGE), (command, said)
    assert {"migrate", "key", "model", "studies", "submit"} <= {*unreachable}


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({"CARINA_API_PORT": "99999"}, "CARINA_API_PORT: Input should be less than or equal to 65535"),
        ({"CARINA_BATCH_SIZE": "many"}, "CARINA_BATCH_SIZE: "),
        ({"CARINA_S3_ENDPOINT_URL": "ftp://127.0.0.1:1"}, "CARINA_S3_ENDPOINT_URL: Give a URL"),
        ({"CARINA_CA_BUNDLE": "/nowhere/ca.pem"}, "/nowhere/ca.pem"),
    ],
)
def test_a_wrong_setting_is_named_by_every_process(
    run: Run, variables: dict[str, str], told: str, tmp_path: Path
) -> None:
    for command in (
        "api",
        "worker intake",
        "migrate",
        "key list --project x",
        "doctor",
        f"up --data {tmp_path / 'data'}",
    ):
        code, said = run(*command.split(), **NOWHERE | variables)
        assert (code, is_one_error(said), told in said) == (USAGE, True, True), said


@pytest.mark.parametrize(
    "url", ["ftp://127.0.0.1", "127.0.0.1:8080", "http://a b", "http://", "http://h:99999", "http://h:x", "http://[::1"]
)
def test_a_wrong_url_of_the_api_is_a_wrong_setting(run: Run, url: str) -> None:
    code, said = run("studies", **NOWHERE | {"CARINA_API_URL": url})
    assert (code, is_one_error(said), "CARINA_API_URL: It must be an absolute http(s) URL" in said) == (
        USAGE,
        True,
        True,
    ), said


@pytest.mark.parametrize(
    ("missing", "command", "extra"),
    [
        ("torch", "worker detect", "worker"),
        ("flask", "api", "api"),
        ("pynetdicom", "dicom-listener", "api"),
        ("hotcoco", "trainer", "trainer"),
    ],
)
def test_a_missing_extra_is_named(missing: str, command: str, extra: str, tmp_path: Path) -> None:
    program = (
        f"import sys; sys.modules[{missing!r}] = None; sys.argv = ['carina', *{command.split()}]; "
        "from deploy.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY), **NOWHERE},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, is_one_error(done.stderr)) == (FAILED, True), done.stderr
    assert f"error extra_missing: This command needs the extra `{extra}` ({missing} is not installed)." in done.stderr
    assert f"pip install 'carina[{extra}]'" in done.stderr


def test_a_data_folder_that_cannot_be_used_is_one_line(run: Run, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.write_text("a file")
    for command in ("up", "demo"):
        code, said = run(command, "--data", str(data))
        assert code in (FAILED, USAGE), said
    for command in ("studies", "doctor", "key list", "down", "ps"):
        code, said = run(*command.split(), "--data", str(data))
        assert code in (FAILED, USAGE), (command, said)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"CARINA_API_KEY='open\n", b"{not lines}\n", b"1=2\n"])
def test_a_damaged_env_file_is_one_line(run: Run, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "env").write_bytes(content)
    code, said = run("studies", "--data", str(tmp_path / "data"))
    assert (code, is_one_error(said), "env_file_unreadable" in said) == (FAILED, True, True), said


@pytest.mark.parametrize("content", [b"\xff", b"{", b"[]", b'{"api_port": "x"}', b'{"postgres_port": []}'])
def test_damaged_secrets_are_one_line(run: Run, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "secrets.json").write_bytes(content)
    code, said = run("up", "--data", str(tmp_path / "data"))
    assert code == FAILED, said
    assert "secrets.json" in said


def test_a_stack_that_is_down_is_said_to_be_down(run: Run, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "env").write_text("".join(f"export {name}={value}\n" for name, value in NOWHERE.items()))
    code, said = run("studies", "--data", str(tmp_path / "data"))
    assert (code, is_one_error(said)) == (USAGE, True)
    assert f"The stack in {tmp_path / 'data'} is not up." in said
    assert f"carina up --data {tmp_path / 'data'}" in said


def test_a_home_that_cannot_be_written_to_is_one_line(run: Run, tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file, not a folder")
    (tmp_path / "image.dcm").write_bytes(b"x")
    code, said = run("submit", str(tmp_path / "image.dcm"), XDG_STATE_HOME=str(tmp_path / "state"), **NOWHERE)
    assert (code, is_one_error(said), "journal_unusable" in said) == (FAILED, True, True), said
    assert "XDG_STATE_HOME" in said
    (tmp_path / "kept" / "carina").mkdir(parents=True)
    from deploy.cli.submissions import journal_place

    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("XDG_STATE_HOME", str(tmp_path / "kept"))
        journal_place(NOWHERE["CARINA_API_URL"], [tmp_path / "image.dcm"]).write_bytes(b"no database" * 100)
    code, said = run("submit", str(tmp_path / "image.dcm"), XDG_STATE_HOME=str(tmp_path / "kept"), **NOWHERE)
    assert (code, is_one_error(said), "journal_unusable" in said) == (FAILED, True, True), said
