"""Each process of Carina works with the secrets that it needs, and holds no other."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import pytest

from deploy.needs import CONSOLE, DATABASE, NEEDS, OBJECTS, REDIS, SECRETS, environment_of
from deploy.stack.components import carina_components, migrate
from deploy.stack.folder import Folder
from shared.database import Database
from shared.settings import Settings
from shared.tables import Model, Project
from tests.integration.child_processes import Processes
from tests.ports import free_port
from tests.waiting import DEADLINE_S, wait_for

#: Of the process itself, and of what it reads at the start.
COMMANDS = {"api": ("api",), "beat": ("beat",), "trainer": ("trainer",), "dicom-listener": ("dicom-listener",)} | {
    stage: ("worker", stage) for stage in ("intake", "prepare", "detect", "notify")
}
FOREIGN = {
    "CARINA_SESSION_SECRET": "secret-of-the-console",
    "CARINA_API_KEY": "carina_secret_key",
    "CARINA_S3_SESSION_TOKEN": "",
    "AWS_SECRET_ACCESS_KEY": "secret-of-aws",
}


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    with ExitStack() as closing:
        yield Processes({}, tmp_path, closing, as_programs=True)


def test_every_secret_is_needed_by_somebody() -> None:
    assert DATABASE | REDIS | OBJECTS | CONSOLE | {"CARINA_API_KEY"} == SECRETS


@pytest.mark.parametrize("service", COMMANDS)
def test_a_process_works_with_its_own_secrets_alone(
    service: str,
    processes: Processes,
    environ: dict[str, str],
    settings: Settings,
    database: Database,
    demo_model: Model,
    tmp_path: Path,
) -> None:
    with database.begin() as session:
        session.add(Project(name="default"))
    given = {name: value for name, value in (environ | FOREIGN).items() if value}
    # Half of them by way of a file, as in containers.
    (path := tmp_path / "database-url").write_text(given.pop("CARINA_DATABASE_URL"))
    given["CARINA_DATABASE_URL_FILE"] = str(path)
    own = environment_of(service, given)
    port = free_port()
    ports = {"CARINA_API_PORT": str(port), "CARINA_DICOM_PORT": "0", "CARINA_DICOM_ALLOWED_AES": "SENDER"}
    more = {"CARINA_TRAINER_CACHE_FOLDER": str(tmp_path / "cache"), "CARINA_DEVICE": "cpu"}
    name = processes.start(*COMMANDS[service], called=service, **own | ports | more)

    def takes_work() -> bool:
        if service != "api":
            return processes.is_well(name)
        with suppress(httpx.TransportError):
            return httpx.get(f"http://127.0.0.1:{port}/readyz").is_success
        return False

    wait_for(takes_work, lambda: processes.said(name))
    process = processes.running[name].pid
    held = Path(f"/proc/{process}/environ").read_bytes() if os.geteuid() == 0 or service != "prepare" else b""
    for variable, value in (environ | FOREIGN).items():
        of_objects = variable.startswith("AWS_") and NEEDS[service] >= OBJECTS
        is_secret = variable in SECRETS or variable.startswith("AWS_")
        if value and is_secret and variable not in NEEDS[service] and not of_objects:
            assert value.encode() not in held, variable
    assert processes.stop(name) == 0, processes.said(name)


def test_the_stack_gives_each_process_its_own_secrets_alone(tmp_path: Path) -> None:
    secrets = {name: f"secret of {name}" for name in SECRETS}
    files = {f"{name}_FILE": f"/run/secrets/{name}" for name in SECRETS}
    env = secrets | files | {"CARINA_API_HOST": "127.0.0.1", "CARINA_API_PORT": "8080", "CARINA_BATCH_SIZE": "2"}
    components = [*carina_components(Folder(tmp_path), env, prepare_workers=2), migrate(env)]
    assert {component.name for component in components} == {*NEEDS, "prepare-1"} - {"dicom-listener"}
    for component in components:
        needed = NEEDS[component.name.removesuffix("-1")]
        held = {name for name in component.env if name.removesuffix("_FILE") in SECRETS}
        assert held == {word for name in needed for word in (name, f"{name}_FILE")}
        assert component.env["CARINA_BATCH_SIZE"] == "2", "a setting that is no secret goes to all"


def test_the_credentials_of_aws_go_to_those_who_read_objects() -> None:
    env = {"AWS_SECRET_ACCESS_KEY": "secret", "AWS_PROFILE": "mine", "AWS_CA_BUNDLE": "/ca.pem", "PATH": "/bin"}
    assert environment_of("prepare", env) == env
    assert environment_of("notify", env) == {"AWS_CA_BUNDLE": "/ca.pem", "PATH": "/bin"}


def test_a_process_that_lacks_a_secret_of_its_own_says_so(processes: Processes, environ: dict[str, str]) -> None:
    """The table of needs is not longer than it must be: the object store's keys and Redis count."""
    name = processes.start("worker", "intake", **environment_of("trainer", environ))
    assert processes.running[name].wait(DEADLINE_S) == 2
    assert "CARINA_REDIS_URL is not set" in processes.said(name)
