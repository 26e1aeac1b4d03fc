"""The API as a process. Importing it takes seconds: one process does so, and each server is forked from that."""

import os
from collections.abc import Mapping
from multiprocessing import get_context
from multiprocessing.context import ForkServerProcess

from api import serve
from shared.settings import Settings

_FORKS = get_context("forkserver")
_FORKS.set_forkserver_preload([__name__])


def start_api(environ: Mapping[str, str], change: str) -> ForkServerProcess:
    """Start the API with this environment alone; `change` is a statement that changes `api.serve` before."""
    process = _FORKS.Process(target=_run, args=(dict(environ), change), daemon=True)
    process.start()
    return process


def _run(environ: dict[str, str], change: str) -> None:
    os.environ.clear()
    os.environ.update(environ)
    exec(change, {"serve": serve})
    serve.serve(Settings())
