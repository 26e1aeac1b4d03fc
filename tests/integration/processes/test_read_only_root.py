"""Processes on a read-only file system with one writable folder do all their work."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from tests.integration.conftest import Keys, png
from tests.ports import free_port
from tests.read_only import sealed
from tests.waiting import DEADLINE_S, wait_for


@contextmanager
def running(argv: list[str], environ: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(argv, env=environ) as process:
        try:
            yield process
        finally:
            process.terminate()


@pytest.mark.usefixtures("demo_model", "settings")
def test_a_image_goes_all_the_way(environ: dict[str, str], keys: Keys, tmp_path: Path) -> None:
    port = free_port()
    there = os.environ | environ | {"HOME": "/nonexistent", "TMPDIR": str(tmp_path), "CARINA_API_PORT": str(port)}
    commands = (["api"], ["worker", "prepare"], ["worker", "detect"])
    with ExitStack() as stack:
        started = []
        for command in commands:
            argv = sealed(tmp_path, [sys.executable, "-m", "deploy.cli", *command])
            started.append(stack.enter_context(running(argv, there)))
        headers = {"Authorization": f"Bearer {keys.both}"}
        http = stack.enter_context(
            httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=DEADLINE_S)
        )

        def is_ready() -> bool:
            assert [process.poll() for process in started] == [None, None, None]
            with suppress(httpx.TransportError):
                return http.get("/readyz").is_success
            return False

        wait_for(is_ready)
        # Of a size that is spooled to a file, not held in memory.
        (file,) = http.post("/v1/studies", files=[("files", ("image.png", png(1, 3000)))]).json()["files"]
        assert file["outcome"] == "accepted"
        job = f"/v1/jobs/{file['job_id']}"
        wait_for(lambda: http.get(job, params={"wait": 30}).json()["state"] == "succeeded", lambda: http.get(job).text)
    assert [process.returncode for process in started] == [0, 0, 0]
