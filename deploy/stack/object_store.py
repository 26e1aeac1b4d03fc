"""The object store: `nanio`, an S3 endpoint on the file system."""

import importlib.util
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from deploy.stack import probes
from deploy.stack.component import Component
from deploy.stack.errors import StackError
from deploy.stack.folder import Folder


def component(folder: Folder, port: int, environ: Mapping[str, str], was_killed: bool) -> Component:
    """Return the server. `was_killed`: its last run was killed. Raises `StackError` if nanio is not installed."""
    if importlib.util.find_spec("nanio") is None:
        raise StackError("nanio is missing: `pip install nanio`, or set CARINA_S3_ENDPOINT_URL.")
    objects = folder.path / "objects"
    address = f"127.0.0.1:{port}"
    options = ("--no-access-log", "--log-level", "warning", "--gc-abandoned-uploads")
    return Component(
        name="nanio",
        argv=(
            *(sys.executable, "-P", "-m", "nanio", "serve"),
            *("--host", "127.0.0.1", "--port", str(port), "--data-dir", str(objects), *options),
        ),
        env={
            **environ,
            "NANIO_ACCESS_KEY": folder.secret("s3_access_key_id"),
            "NANIO_SECRET_KEY": folder.secret("s3_secret_access_key"),
        },
        is_ready=probes.http(f"http://{address}/"),
        address=address,
        before_start=_sweep_after_a_crash(objects, was_killed),
        stop_timeout_s=10,  # it waits for open requests, even slow ones
        hint="Is the disk full?",
    )


def _sweep_after_a_crash(objects: Path, was_killed: bool) -> Callable[[], None]:
    """Return a function that deletes the temporary files of interrupted writes.

    nanio writes an object's metadata to `KEY.json.tmp` and does not overwrite an existing file. A left-over file would
    make every later PUT of the same key fail.
    """
    crashed = was_killed

    def before_start() -> None:
        nonlocal crashed
        objects.mkdir(mode=0o700, exist_ok=True)
        if crashed:
            for folder, _, names in os.walk(objects):
                in_metadata = ".nanio-meta" in Path(folder).parts
                for name in names:
                    if name.startswith(".tmp.") or (in_metadata and name.endswith(".json.tmp")):
                        with suppress(FileNotFoundError):
                            (Path(folder) / name).unlink()
        crashed = True  # all further starts follow a crash

    return before_start
