"""Debian's Orthanc with PostgreSQL for its index and its files, to measure intake against."""

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psycopg
from sqlalchemy.engine import make_url

PROGRAM = shutil.which("Orthanc", path="/usr/sbin:/usr/bin:/usr/local/sbin") or ""
_PLUGINS = Path("/usr/share/orthanc/plugins")
_NAMES = ("libOrthancPostgreSQLIndex.so", "libOrthancPostgreSQLStorage.so", "libOrthancDicomWeb.so")
_READY_S = 60


def is_here() -> bool:
    """Whether the program and its plugins are installed."""
    return bool(PROGRAM) and all((_PLUGINS / name).exists() for name in _NAMES)


@contextmanager
def orthanc(folder: Path, database_url: str) -> Iterator[str]:
    """Run Orthanc on an empty database of this PostgreSQL server, else with its defaults; yield its URL."""
    url = make_url(database_url)
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE orthanc")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {
        "HttpPort": port,
        "DicomServerEnabled": False,
        "AuthenticationEnabled": False,
        "StorageDirectory": str(folder / "orthanc"),
        "Plugins": [str(_PLUGINS / name) for name in _NAMES],
        "PostgreSQL": {
            "EnableIndex": True,
            "EnableStorage": True,
            "Host": url.host,
            "Port": url.port,
            "Database": "orthanc",
            "Username": url.username,
            "Password": url.password,
            "EnableSsl": False,
        },
    }
    (folder / "orthanc").mkdir()
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with (
        (folder / "orthanc.log").open("w") as log,
        subprocess.Popen([PROGRAM, str(folder / "orthanc.json")], stdout=log, stderr=log) as process,
    ):
        try:
            base = f"http://127.0.0.1:{port}"
            deadline = time.monotonic() + _READY_S
            while not _answers(base):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError("Orthanc did not come up:\n" + (folder / "orthanc.log").read_text()[-2000:])
                time.sleep(0.2)
            yield base
        finally:
            process.terminate()
            process.wait(timeout=60)


def _answers(base: str) -> bool:
    try:
        return httpx.get(f"{base}/system").is_success
    except httpx.TransportError:
        return False
