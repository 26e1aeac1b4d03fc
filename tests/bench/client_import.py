"""How long a program waits for `import api.client`, beside the packages that the client is made of."""

import subprocess
import sys
from collections.abc import Iterator

from tests.bench.figure import Figure

TRIES = 5
TARGET_S = 0.3
MAX_RATIO = 3.0


def measure() -> Iterator[Figure]:
    """Take the least CPU time of several new processes."""
    client_s, packages_s = _import_s("api.client"), _import_s("httpx, pydantic, tenacity")
    yield Figure("CPU time of `import api.client`", client_s, "s", TARGET_S, "below")
    yield Figure("over `import httpx, pydantic, tenacity`", client_s / packages_s, "x", MAX_RATIO, "below")


def _import_s(modules: str) -> float:
    code = f"import time; begun = time.process_time(); import {modules}; print(time.process_time() - begun)"
    runs = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(TRIES)
    ]
    return min(float(run.stdout) for run in runs)
