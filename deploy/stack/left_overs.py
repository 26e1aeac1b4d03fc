"""Finds and ends the processes that a killed supervisor left running in a data folder."""

import os
import signal

from deploy.stack import postgres, processes, state
from deploy.stack.component import Say
from deploy.stack.folder import Folder

#: Long enough for a server to end in order, short enough for `up` not to seem hung.
_PATIENCE_S = 5


def end_left_overs(folder: Folder, say: Say) -> bool:
    """End them and return whether the last run had no orderly end. The caller holds the folder.

    The kernel told the supervisor's children to stop when it died; this waits for those still at it, then kills.
    """
    entries = state.read(folder)
    names = {entry.pid: entry.name for entry in entries if entry.runs}
    if left := _left_overs(folder, set(names)):
        said = sorted({names.get(process.pid, process.name) for process in left})
        say(f"ending what a killed run left: {', '.join(said)}")
        processes.end(left, [(signal.SIGINT, _PATIENCE_S), (signal.SIGKILL, 5)])
    state.forget(folder)
    return bool(entries)


def _left_overs(folder: Folder, heads: set[int | None]) -> list[processes.Process]:
    """Recorded processes that still run, their groups, and what bears the folder's mark in its environment.

    PostgreSQL writes over its environment, hence it is asked for by its working directory.
    """
    servers = {process.pid for process in postgres.serving(folder)}
    groups = {process.group for process in processes.every() if process.pid in heads}
    mark = folder.mark.encode()
    return [
        process
        for process in processes.every()
        if process.runs
        and process.pid != os.getpid()
        and (process.group in groups or process.pid in servers or mark in processes.environment(process.pid))
    ]
