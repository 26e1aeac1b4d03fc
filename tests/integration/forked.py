"""Carina's processes, forked from one that has imported them: to import them takes each process seconds of CPU."""

import ctypes
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import get_context
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import psutil

from api import serve
from deploy.cli import main
from shared.processes import readiness_monitor
from shared.settings import Settings
from tests.requirements import REPOSITORY
from trainer.agent import run_trainer
from workers import prepare, process

#: What the children of `_FORKS` find imported already. No torch: the API never loads it.
PRELOADED = (main, prepare, process, run_trainer, serve)

#: The variable that names the network namespace of a process.
NETWORK = "NETWORK_NAMESPACE"

_FORKS = get_context("forkserver")
_FORKS.set_forkserver_preload([__name__])


def start_api(environ: Mapping[str, str], change: str) -> ForkServerProcess:
    """Start the API with this environment alone; `change` is a statement that changes `api.serve` before."""
    process = _FORKS.Process(target=_serve, args=(dict(environ), change), daemon=True)
    process.start()
    return process


class Forked:
    """A process with an environment of its own, handled like a `subprocess.Popen`."""

    def __init__(self, target: Callable[..., None], *args: object, environ: Mapping[str, str]) -> None:
        self._process = _FORKS.Process(target=_run, args=(dict(environ), target, args))
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        code = self._process.exitcode
        if code is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            psutil.Process(self.pid).send_signal(number)

    def terminate(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        self._process.kill()


def command(words: Sequence[str], environ: Mapping[str, str], log: Path) -> Forked:
    """Start a command of Carina that writes to a log."""
    return Forked(_command, list(words), str(log), environ=environ)


def trainer_process(environ: Mapping[str, str]) -> Forked:
    """Start `carina trainer`."""
    return Forked(_train, environ=environ)


def _run(environ: dict[str, str], target: Callable[..., None], args: tuple[object, ...]) -> None:
    if name := environ.pop(NETWORK, ""):
        with Path(f"/run/netns/{name}").open() as network:
            assert ctypes.CDLL(None, use_errno=True).setns(network.fileno(), 0) == 0, os.strerror(ctypes.get_errno())
    os.environ.clear()
    os.environ.update(environ)
    os.chdir(REPOSITORY)
    # A process of a test notices within seconds that a server has gone or come back.
    readiness_monitor.CHECK_EVERY_S = 2.0
    target(*args)


def _serve(environ: dict[str, str], change: str) -> None:
    os.environ.clear()
    os.environ.update(environ)
    known = set(vars(serve))
    exec(change, {"serve": serve})
    assert set(vars(serve)) == known, "what a test changes is there"
    serve.serve(Settings())


def _command(words: list[str], log: str) -> None:
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.argv = ["carina", *words]
    main()


def _train() -> None:
    run_trainer(Settings())
