"""Carina's own processes as components of the stack."""

import os
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import deploy
from deploy.needs import environment_of
from deploy.stack import probes
from deploy.stack.component import Component
from deploy.stack.folder import Folder
from shared.network.addresses import join_host_port, reachable_host
from shared.processes import process_state
from shared.settings import Settings
from shared.vocabulary.states import SERVED, WorkerKind

#: API and workers finish their current work within 30 s. A worker that does not loses its leases to other workers.
_STOP_S = 35
#: A training can take 30 s to write its checkpoint; then the trainer updates its row.
_TRAINER_STOP_S = 45
#: Processes first wait for the servers; PostgreSQL can need 120 s after a crash.
_READY_S = 180


def migrate(env: Mapping[str, str]) -> Component:
    """Migrates the schema, creates the bucket, and exits."""
    return Component(name="migrate", argv=_run("deploy.stack.gated", "migrate"), env=environment_of("migrate", env))


def carina_components(
    folder: Folder,
    env: Mapping[str, str],
    *,
    prepare_workers: int = 1,
    detect_workers: int = 1,
    trainers: int = 1,
) -> list[Component]:
    """Return the API, the workers, the trainers and beat."""
    address = join_host_port(reachable_host(env["CARINA_API_HOST"]), env["CARINA_API_PORT"])
    api = Component(
        name="api",
        argv=_run("deploy.stack.gated", "api"),
        env=environment_of("api", env),
        is_ready=probes.http(f"http://{address}/readyz", below=300),
        address=address,
        stop_timeout_s=_STOP_S,
        ready_timeout_s=_READY_S,
        hint="Is a setting wrong?",
    )
    counts = {WorkerKind.PREPARE: prepare_workers, WorkerKind.DETECT: detect_workers}
    workers = [
        _worker(folder, env, f"{kind}-{number}", "worker", str(kind))
        for kind in SERVED
        for number in range(counts.get(kind, 1))
    ]
    train = [_trainer(folder, env, f"trainer-{number}") for number in range(trainers)]
    return [api, *workers, *train, _worker(folder, env, "beat", "beat")]


def with_code(env: Mapping[str, str]) -> dict[str, str]:
    """Return the environment with this code importable, also from a checkout, and with unbuffered output."""
    env = {**env, "PYTHONUNBUFFERED": "1"}
    root = str(Path(deploy.__file__).parent.parent)
    if root == sysconfig.get_path("purelib"):
        return env
    return {**env, "PYTHONPATH": os.pathsep.join(filter(None, (root, env.get("PYTHONPATH"))))}


def _worker(folder: Folder, env: Mapping[str, str], name: str, *command: str) -> Component:
    name = name.removesuffix("-0")
    state_file = folder.run / f"{name}.state.json"
    return Component(
        name=name,
        argv=_run("deploy.stack.gated", *command),
        env={**environment_of(command[-1], env), process_state.VARIABLE: str(state_file)},
        is_ready=probes.process(state_file),
        before_start=lambda: state_file.unlink(missing_ok=True),
        after_death=partial(_wake_sweep, env),
        stop_timeout_s=_STOP_S,
        ready_timeout_s=_READY_S,
        hint="Is a setting wrong?",
    )


def _trainer(folder: Folder, env: Mapping[str, str], name: str) -> Component:
    # Renditions are kept with the other data of the stack, unless the operator sets another folder.
    cache = env.get("CARINA_TRAINER_CACHE_FOLDER") or str(folder.path / "trainer-cache")
    # Spinning OpenMP threads are a tenth faster if a training has the machine for itself. Here other processes share
    # it, and waiting for a thread that is not running costs more than ten times as much.
    waiting = {"OMP_WAIT_POLICY": env.get("OMP_WAIT_POLICY", "PASSIVE")}
    own = {**env, **waiting, "CARINA_TRAINER_CACHE_FOLDER": cache}
    component = _worker(folder, own, name, "trainer")
    return replace(component, stop_timeout_s=_TRAINER_STOP_S)


def _wake_sweep(env: Mapping[str, str]) -> None:
    """Let the sweep return the work of a process that has ended. Without Redis, the sweep does it at its next time."""
    # Imported at the first death of a process, because no other part of the supervisor needs Celery.
    from shared.database import Database
    from shared.queue.hints import Hints

    settings = Settings.from_env(env)
    database = Database.from_settings(settings)
    hints = Hints(settings, database)
    hints.send(WorkerKind.SWEEP, 1)
    hints.close()
    database.close()


def _run(module: str, *command: str) -> tuple[str, ...]:
    # -P: a folder named `shared` or `api` in the working directory must not be imported.
    return (sys.executable, "-P", "-m", module, *command)
