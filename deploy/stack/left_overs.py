"""Finds and ends the processes that a killed supervisor left running in a data folder."""

import os
import signal

from deploy.stack import postgres, processes, state
from deploy.stack.component import Say
from deploy.stack.folder import Folder

#: Enough time for an orderly shutdown of a server, but short enough that `up` does not seem to hang.
_PATIENCE_S = 5


def end_left_overs(folder: Folder, say: Say) -> bool:
    """End these processes, and return whether the last run was killed. The caller must hold the folder's lock.

    When the supervisor died, the kernel told its children to stop. This function waits for those still stopping, then
    kills them.
    """
    entries = state.read(folder)
    names = {entry.pid: entry.name for entry in entries if entry.runs}
    if left := _left_overs(folder, set(names)):
        said = sorted({names.get(process.pid, process.name) for process in left})
        say(f"ending processes of a killed run: {', '.join(said)}")
        processes.end(left, [(signal.SIGINT, _PATIENCE_S), (signal.SIGKILL, 5)])
    state.forget(folder)
    return bool(entries)


def _left_overs(folder: Folder, heads: set[int | None]) -> list[processes.Process]:
    """Return running processes that are recorded, in their groups, or have the folder's mark in their environment.

    PostgreSQL overwrites its environment, so it is found by its working directory.
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
