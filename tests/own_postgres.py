"""A PostgreSQL of a test's own, to be hurt: the server of the test process is everybody's."""

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from deploy.stack import postgres, processes
from deploy.stack.component import Component
from deploy.stack.folder import Folder
from tests.waiting import DEADLINE_S


class OwnPostgres:
    """One server, which may be started, killed and set as a test likes."""

    def __init__(self, path: Path, *settings: str) -> None:
        """`settings` are as `max_connections=20`; the test's end may lose what was written last."""
        folder = Folder(path)
        folder.make()
        self._settings = [word for each in ("fsync=off", "full_page_writes=off", *settings) for word in ("-c", each)]
        self.port = folder.port("postgres", lambda _: None)
        self.component: Component = postgres.component(folder, self.port, dict(os.environ))
        self._password = folder.secret("postgres_password")
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, database: str = postgres.DATABASE) -> str:
        """Where its database answers."""
        return postgres.url(self._password, self.port, database)

    def start(self) -> None:
        """Start it and wait until it answers."""
        component = self.component
        component.before_start()
        uid, gid = component.run_as or (None, None)
        self._process = subprocess.Popen(
            [*component.argv, *self._settings],
            cwd=component.cwd,
            env=dict(component.env),
            user=uid,
            group=gid,
            extra_groups=None if uid is None else [],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=processes.die_with_parent(signal.SIGINT),
        )
        deadline = time.monotonic() + component.ready_timeout_s
        while not asyncio.run(component.is_ready()):
            assert self._process.poll() is None, "PostgreSQL ended while it started"
            assert time.monotonic() < deadline, "PostgreSQL did not come up"
            time.sleep(0.05)

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        """End it, by default in good order."""
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(DEADLINE_S)
            self._process = None

    def run(self, *statements: str) -> None:
        """Run statements as its superuser, each on its own, in a session that nothing turns read-only."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute("SET default_transaction_read_only = off")
            for statement in statements:
                connection.execute(statement)

    def terminate_sessions(self) -> None:
        """End every session of its database."""
        self.run(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{postgres.DATABASE}'")

    def set_read_only(self, read_only: bool) -> None:
        """Refuse changes in every session that begins from now on, and in those that have begun."""
        self.run(
            f"ALTER SYSTEM SET default_transaction_read_only = {'on' if read_only else 'off'}",
            "SELECT pg_reload_conf()",
        )


@contextmanager
def own_postgres(path: Path, *settings: str) -> Iterator[OwnPostgres]:
    """Run a server until the end of the block."""
    server = OwnPostgres(path, *settings)
    server.start()
    try:
        yield server
    finally:
        server.stop()
