"""Everything on one machine: `carina up`, `down`, `ps` and `demo`."""

import asyncio
import os
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from deploy.cli.console import is_json, print_json, tell
from deploy.cli.extras import require
from deploy.stack import crashes, processes, state
from deploy.stack.errors import StackError, StackInUse
from deploy.stack.folder import DEFAULT_DATA, Folder

Data = Annotated[Path, typer.Option("--data", help="The data folder.", file_okay=False)]
_DOWN_TIMEOUT_S = 150
#: The most crashes in the table; with --json all that are kept are printed.
_CRASHES_SHOWN = 10
_SHOWN = ("name", "pid", "state", "since", "restarts")


def up(
    data: Data = DEFAULT_DATA,
    prepare_workers: Annotated[
        int | None, typer.Option(min=0, help="Processes that decode images; by default 2, on a single core 1.")
    ] = None,
    detect_workers: Annotated[int, typer.Option(min=0, help="Processes that run the detector.")] = 1,
    trainers: Annotated[int, typer.Option(min=0, help="Trainer processes; each runs one task at a time.")] = 1,
    servers_only: Annotated[
        bool, typer.Option("--servers-only", help="Start only PostgreSQL, Redis and the object store.")
    ] = False,
) -> None:
    """Run all of Carina on this machine, until Ctrl-C.

    Servers named by CARINA_DATABASE_URL, CARINA_REDIS_URL or CARINA_S3_ENDPOINT_URL are used instead of our own.
    """
    require("stack")
    # Clients of the servers and code for tables and models, which every other command would have to wait for.
    from deploy.stack.stack import Application, Stack
    from shared.settings import Settings
    from shared.settings.secret_files import resolve

    folder = Folder(data)
    application = None
    if not servers_only:
        from deploy.stack.components import carina_components, migrate

        components = partial(
            carina_components,
            folder,
            # Two, so that one continues while the other one starts again.
            prepare_workers=min(2, len(os.sched_getaffinity(0))) if prepare_workers is None else prepare_workers,
            detect_workers=detect_workers,
            trainers=trainers,
        )
        application = Application(migrate, _bootstrap, components)
    with _system_errors_told():
        environ = resolve(Settings, os.environ)
        asyncio.run(Stack(folder, environ, application, say).run())


def _bootstrap(env: Mapping[str, str]) -> str:
    # Imported while the other processes load their code, and not before they start to.
    from deploy.bootstrap import bootstrap

    return bootstrap(env)


def down(data: Data = DEFAULT_DATA) -> None:
    """Stop the stack of a data folder, and return once all its processes have ended."""
    with _system_errors_told():
        stopped = stop(Folder(data))
    tell({"data": str(data), "stopped": stopped}, f"{'Stopped the stack' if stopped else 'Nothing runs'} in {data}.")


def ps(data: Data = DEFAULT_DATA) -> None:
    """List the processes of a data folder's stack, and the latest crashes."""
    with _system_errors_told():
        entries, past = state.read(Folder(data)), crashes.read(Folder(data))
    if is_json():
        print_json([_describe(entry, past) for entry in entries])
        return
    if not entries:
        typer.echo(f"Nothing runs in {data}.")
    else:
        typer.echo(f"{'NAME':<12} {'PID':>7} {'STATE':<9} {'SINCE':<20} RESTARTS")
        for entry in entries:
            pid, since = entry.pid or "-", _second(entry.since)
            typer.echo(f"{entry.name:<12} {pid:>7} {entry.state:<9} {since:<20} {entry.restarts}")
    if past:
        typer.echo(f"\n{'CRASHED':<12} {'AT':<20} {'AFTER':>9}  REASON")
        for crash in past[-_CRASHES_SHOWN:]:
            typer.echo(f"{crash.name:<12} {_second(crash.at):<20} {crash.ran_s:>7.0f} s  {crash.reason}")


def _describe(entry: state.Entry, past: list[crashes.Crash]) -> dict[str, object]:
    shown: dict[str, object] = {key: value for key, value in asdict(entry).items() if key in _SHOWN}
    own = [crash for crash in past if crash.name == entry.name]
    return shown | {"crashes": [{"at": crash.at, "reason": crash.reason, "ran_s": crash.ran_s} for crash in own]}


def _second(time: str) -> str:
    return datetime.fromisoformat(time).astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def demo(
    data: Annotated[
        Path, typer.Option("--data", help="The data folder. It is kept, so a second demo is quick.")
    ] = DEFAULT_DATA,
    exit_when_done: Annotated[bool, typer.Option("--exit", help="Stop at the end instead of staying up.")] = False,
    studies: Annotated[int, typer.Option(min=1, help="How many phantom studies.")] = 24,
    seed: Annotated[int, typer.Option(help="Seed of the synthetic images.")] = 2_000_000,
    train: Annotated[bool, typer.Option("--train", help="First train on images of a second machine.")] = False,
) -> None:
    """Start the stack, send synthetic radiographs and bad files, and show the findings."""
    require("stack")
    from deploy.cli.demo import demo as run_demo

    run_demo(data, exit_when_done=exit_when_done, studies=studies, seed=seed, train=train)


def stop(folder: Folder) -> bool:
    """Stop all processes of the folder, including those of a killed run; return whether there were any.

    Raises `StackError` when it does not end in time.
    """
    from deploy.stack.left_overs import end_left_overs

    if not folder.run.is_dir():
        return False
    deadline = time.monotonic() + _DOWN_TIMEOUT_S
    asked: processes.Process | None = None
    while time.monotonic() < deadline:
        try:
            with folder.hold():
                was_killed = end_left_overs(folder, say)
        except StackInUse:
            if asked is None and (asked := state.supervisor(folder)):
                os.kill(asked.pid, signal.SIGTERM)
        else:
            # The lock goes a moment before the process itself.
            if not asked or not processes.is_running(asked.pid, asked.started):
                return was_killed or asked is not None
        time.sleep(0.05)
    raise StackError(f"The stack in {folder.path} did not stop in {_DOWN_TIMEOUT_S} s.")


def say(line: str) -> None:
    """Print a line, if there is still somebody to read it: a closed terminal must not keep the stack from stopping."""
    with suppress(OSError, SystemExit):  # rich would end the program if the reader of its output has closed the pipe
        tell({"message": line}, line)


@contextmanager
def _system_errors_told() -> Iterator[None]:
    processes.require_linux()
    try:
        yield
    except OSError as exc:  # no permission, a full disk
        raise StackError(f"The data folder cannot be used: {exc}.") from exc
