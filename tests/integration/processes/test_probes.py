"""Probes: of one process each, alive whatever its servers do, ready when they let it take work."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa

from shared import migrations
from shared.database import Database
from shared.processes import process_state
from shared.settings import Settings
from tests.integration.child_processes import Processes
from tests.integration.conftest import Api, Keys
from tests.requirements import REPOSITORY
from tests.waiting import wait_for


@pytest.fixture
def processes(environ: dict[str, str], settings: Settings, tmp_path: Path) -> Iterator[Processes]:
    """Processes on this test's servers, that write their state into one temporary folder."""
    with ExitStack() as closing:
        yield Processes(environ | {"CARINA_SWEEP_INTERVAL_S": "600"}, tmp_path, closing)


def probe(*words: str, **environ: str) -> tuple[int, str]:
    """Run `carina probe`; return its exit code and what it said."""
    command = [sys.executable, "-m", "deploy", "probe", *words]
    done = subprocess.run(
        command, cwd=REPOSITORY, env=os.environ | environ, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    assert done.stdout.count("\n") == 1
    return done.returncode, done.stdout.strip()


def test_a_hung_worker_fails_its_probe_and_the_other_one_on_the_host_does_not(
    processes: Processes, tmp_path: Path
) -> None:
    (tmp_path / "carina-tmp").mkdir()
    shared = {"TMPDIR": str(tmp_path / "carina-tmp"), process_state.VARIABLE: ""}
    names = [processes.start("worker", "notify", called=name, **shared) for name in ("hung", "fine")]
    hung, fine = (str(processes.running[name].pid) for name in names)
    for pid in (hung, fine):
        wait_for(lambda pid=pid: probe("ready", "--pid", pid, **shared) == (0, f"notify (process {pid}) takes work."))
        assert probe("live", "--pid", pid, **shared) == (0, f"notify (process {pid}) is alive.")
    code, said = probe("live", "--stage", "notify", **shared)
    assert (code, said.startswith("Several processes run here")) == (1, True)

    processes.running["hung"].send_signal(signal.SIGSTOP)
    wait_for(lambda: probe("live", "--pid", hung, "--within", "8", **shared)[0] == 1)
    wait_for(lambda: probe("live", "--pid", fine, "--within", "8", **shared)[0] == 0)
    assert "has made no progress for" in probe("live", "--pid", hung, "--within", "8", **shared)[1]
    processes.running["hung"].send_signal(signal.SIGCONT)
    wait_for(lambda: probe("live", "--pid", hung, "--within", "8", **shared)[0] == 0)

    processes.running["hung"].kill()
    processes.running["hung"].wait()
    assert probe("live", "--pid", hung, **shared) == (1, f"notify (process {hung}) has ended.")
    # The only one that runs needs no name any more.
    wait_for(lambda: probe("live", **shared) == (0, f"notify (process {fine}) is alive."))
    assert processes.stop("fine") == 0
    assert probe("live", "--pid", fine, **shared)[0] == 1


@pytest.mark.parametrize("words", [("worker", "notify"), ("beat",), ("trainer",), ("dicom-listener",)], ids=" ".join)
def test_a_process_whose_database_is_behind_is_alive_but_takes_no_work(
    words: tuple[str, ...], processes: Processes, database: Database, keys: Keys
) -> None:
    name = processes.start(
        *words, CARINA_DICOM_ALLOWED_AES="SENDER", CARINA_DICOM_PROJECT="ward", CARINA_DICOM_PORT="0"
    )
    file = str(processes.state_file(name))
    wait_for(lambda: probe("ready", "--file", file)[0] == 0)
    with database.begin() as session:
        session.execute(sa.text("UPDATE alembic_version SET version_num = '0001'"))
    refused = (1, f"{process_state.read(Path(file))} takes no work: schema (schema_outdated).")
    wait_for(lambda: probe("ready", "--file", file) == refused)
    assert probe("live", "--file", file)[0] == 0
    assert processes.stop(name) == 0
    assert probe("live", "--file", file) == (1, f"No process has written {file}.")


@pytest.mark.parametrize("words", [("worker", "notify"), ("trainer",)], ids=" ".join)
def test_a_process_that_starts_before_its_database_is_alive_and_takes_work_once_that_is_there(
    words: tuple[str, ...], processes: Processes, environ: dict[str, str], template: str
) -> None:
    base, name = environ["CARINA_DATABASE_URL"].rpartition("/")[0], f"later_{os.getpid()}"
    process = processes.start(*words, CARINA_DATABASE_URL=f"{base}/{name}")
    file = str(processes.state_file(process))
    wait_for(lambda: "database (database_unavailable)" in probe("ready", "--file", file)[1])
    assert probe("live", "--file", file)[0] == 0
    with psycopg.connect(f"{base}/postgres", autocommit=True) as server:
        server.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY FILE_COPY'.encode())
        try:
            wait_for(lambda: probe("ready", "--file", file)[0] == 0, lambda: processes.said(process))
            assert processes.stop(process) == 0
        finally:
            server.execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode())


@pytest.mark.parametrize("words", [("worker", "notify"), ("worker", "detect"), ("beat",), ("trainer",)], ids=" ".join)
def test_a_process_that_starts_before_the_tables_is_alive_and_takes_work_once_they_are_there(
    words: tuple[str, ...], processes: Processes, environ: dict[str, str]
) -> None:
    base, name = environ["CARINA_DATABASE_URL"].rpartition("/")[0], f"empty_{os.getpid()}"
    url = f"{base}/{name}"
    with psycopg.connect(f"{base}/postgres", autocommit=True) as server:
        server.execute(f'CREATE DATABASE "{name}"'.encode())
        try:
            process = processes.start(*words, CARINA_DATABASE_URL=url, CARINA_DEVICE="cpu")
            file = str(processes.state_file(process))
            wait_for(
                lambda: "schema (schema_outdated)" in probe("ready", "--file", file)[1],
                lambda: processes.said(process),
            )
            assert probe("live", "--file", file)[0] == 0
            database = Database(url)
            migrations.upgrade(database)
            database.close()
            wait_for(lambda: probe("ready", "--file", file)[0] == 0, lambda: processes.said(process))
            assert processes.stop(process) == 0
        finally:
            server.execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode())


def test_a_probe_loads_little() -> None:
    """It runs every few seconds in every container: what is slow to load stays out."""
    asked = "import sys, deploy.__main__, deploy.probe; print(*(name.split('.')[0] for name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", asked], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert not {"sqlalchemy", "celery", "redis", "pydantic", "typer", "torch", "httpx"} & set(done.stdout.split())


def test_the_state_of_a_process_that_got_the_id_of_another_one_does_not_count(tmp_path: Path) -> None:
    file = tmp_path / "state.json"
    state = process_state.ProcessState("notify", os.getpid(), "long ago", 0.0)
    file.write_text(json.dumps(asdict(state)))
    assert probe("live", "--file", str(file)) == (1, f"notify (process {os.getpid()}) has ended.")


@pytest.mark.parametrize(
    ("revision", "is_ready"), [("0001", False), ("9999_of_a_newer_version", True)], ids=["behind", "ahead"]
)
def test_a_schema_that_is_behind_is_not_ready_and_one_that_is_ahead_is(
    revision: str, is_ready: bool, api: Api, database: Database
) -> None:
    with database.begin() as session:
        session.execute(sa.text(f"UPDATE alembic_version SET version_num = '{revision}'"))
    answer = api.get("/readyz")
    schema = answer.get_json()["dependencies"]["schema"]
    assert (answer.status_code, schema["ok"]) == (200 if is_ready else 503, is_ready)
    if not is_ready:
        assert schema["code"] == "schema_outdated"
        assert f"is at revision {revision}" in schema["detail"]
        assert "carina migrate" in schema["detail"]


def test_a_read_only_database_is_not_ready(
    database: Database, make_api: Callable[[Settings], Api], settings: Settings
) -> None:
    api = make_api(settings)
    assert api.get("/readyz").status_code == 200
    with database.begin() as session:
        name = session.execute(sa.text("SELECT current_database()")).scalar_one()
        session.execute(sa.text(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on'))
    api = make_api(settings)
    answer = api.get("/readyz")
    assert (answer.status_code, answer.get_json()["dependencies"]["database"]["ok"]) == (503, False)
    assert api.get("/healthz").status_code == 200
