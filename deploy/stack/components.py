"""Carina's own processes, as the stack runs them."""

import os
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import deploy
from deploy.needs import environment_of
from deploy.stack import probes
from deploy.stack.component import Component
from deploy.stack.folder import Folder
from shared.network.addresses import join_host_port, reachable_host
from shared.processes import process_state
from shared.vocabulary.states import SERVED, WorkerKind

#: Both end what they hold within 30 s; a worker that does not loses its leases, and others take over.
_STOP_S = 35
#: A training may take 30 s to write its checkpoint, and the trainer then sees to its row.
_TRAINER_STOP_S = 45
#: They wait for the servers first, and PostgreSQL for up to 120 s after a crash.
_READY_S = 180


def migrate(env: Mapping[str, str]) -> Component:
    """Brings tables and bucket to the state that this version needs; ends when done."""
    return Component(name="migrate", argv=_run("deploy.stack.gated", "migrate"), env=environment_of("migrate", env))


def carina_components(
    folder: Folder,
    env: Mapping[str, str],
    *,
    prepare_workers: int = 1,
    detect_workers: int = 1,
    trainers: int = 1,
) -> list[Component]:
    """The API, the workers, the trainer and beat."""
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
    """The environment with this very code importable, also from a checkout, and with no output held back."""
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
        stop_timeout_s=_STOP_S,
        ready_timeout_s=_READY_S,
        hint="Is a setting wrong?",
    )


def _trainer(folder: Folder, env: Mapping[str, str], name: str) -> Component:
    # Renditions stay near with the rest of the stack's data, unless the operator has a better place for them.
    cache = env.get("CARINA_TRAINER_CACHE_FOLDER") or str(folder.path / "trainer-cache")
    # Threads that spin while they wait for each other gain a tenth where the machine is a training's own. Here other
    # processes share it, and a thread that is waited for while it does not run costs ten times that and more.
    waiting = {"OMP_WAIT_POLICY": env.get("OMP_WAIT_POLICY", "PASSIVE")}
    own = {**env, **waiting, "CARINA_TRAINER_CACHE_FOLDER": cache}
    component = _worker(folder, own, name, "trainer")
    return replace(component, stop_timeout_s=_TRAINER_STOP_S)


def _run(module: str, *command: str) -> tuple[str, ...]:
    # -P: a folder called `shared` or `api` where the user stands must not be taken for ours.
    return (sys.executable, "-P", "-m", module, *command)
