"""A Redis, or a Sentinel, of a test's own: to be broken and mended."""

import os
import shutil
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import redis

from deploy.stack import redis_server
from tests.certificates import Authority
from tests.ports import free_port


class OwnRedis:
    """A server on a port that stays the same when it starts again."""

    def __init__(self, folder: Path, *options: str, password: str = "", tls: Authority | None = None) -> None:
        self.folder, self.port, self.password, self.tls = folder, free_port(), password, tls
        self.options = [*options, *(["--requirepass", password, "--masterauth", password] if password else [])]
        self._process: subprocess.Popen[bytes] | None = None
        self._admin: redis.Redis | None = None
        self.start()

    @property
    def url(self) -> str:
        secret = f":{self.password}@" if self.password else ""
        return f"redis{'s' if self.tls else ''}://{secret}127.0.0.1:{self.port}/0"

    @property
    def admin(self) -> redis.Redis:
        """One connection that stays open, and signed in, whatever happens to the others."""
        if self._admin is None:
            client = redis.Redis(port=self.port, password=self.password or None, single_connection_client=True)
            client.ping()
            self._admin = client
        return self._admin

    def start(self, *more: str) -> None:
        """Start it, and return once it takes connections."""
        self.folder.mkdir(exist_ok=True)
        port = ["--port", str(self.port)] if self.tls is None else ["--port", "0", *_tls_only(self.port, self.tls)]
        program = str(redis_server.program())
        command = [program, "--bind", "127.0.0.1", *port, "--save", "", *self.options, *more]
        self._run(command)

    def _run(self, command: list[str]) -> None:
        with self.folder.with_suffix(".log").open("ab") as log:
            self._process = subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log)
        while self._process.poll() is None:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.02)
        raise AssertionError(self.folder.with_suffix(".log").read_text())

    def signal(self, number: int) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)

    def kill(self) -> None:
        """End it at once, and forget what is on its disk."""
        if self._admin is not None:
            self._admin.close()
            self._admin = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.kill()


def _tls_only(port: int, authority: Authority) -> list[str]:
    own = authority.sign()
    files = {"cert": own.path, "key": own.key, "ca-cert": authority.certificate}
    paths = [word for kind, path in files.items() for word in (f"--tls-{kind}-file", str(path))]
    return ["--tls-port", str(port), "--tls-auth-clients", "no", "--tls-replication", "yes", *paths]


class Sentinel(OwnRedis):
    """Watches one master, and makes a replica the master when that is gone."""

    def __init__(self, folder: Path, master: OwnRedis, *, name: str, password: str = "") -> None:
        self._master, self._name = master, name
        super().__init__(folder, password=password)

    def start(self, *more: str) -> None:
        self.folder.mkdir(exist_ok=True)
        config = self.folder / "sentinel.conf"
        config.write_text(
            f"bind 127.0.0.1\nport {self.port}\n"
            + (f"requirepass {self.password}\n" if self.password else "")
            + f"sentinel monitor {self._name} 127.0.0.1 {self._master.port} 1\n"
            f"sentinel auth-pass {self._name} {self._master.password}\n"
            f"sentinel down-after-milliseconds {self._name} 1000\nsentinel failover-timeout {self._name} 5000\n"
        )
        self._run([str(redis_server.program()), str(config), "--sentinel"])

    def master_port(self) -> int:
        """Where the master is at present."""
        return int(self.admin.sentinel_get_master_addr_by_name(self._name)[1])

    def knows_a_replica(self) -> bool:
        """Whether there is another server that could be the master."""
        return any(not each["is_disconnected"] for each in self.admin.sentinel_slaves(self._name))


def freeze(server: OwnRedis) -> None:
    server.signal(signal.SIGSTOP)


def thaw(server: OwnRedis) -> None:
    server.signal(signal.SIGCONT)
