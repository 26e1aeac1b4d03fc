"""Starts the processes of a task: alone, by torchrun on this machine, or by torchrun on several machines."""

import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from functools import cache
from uuid import UUID

import sqlalchemy as sa
import structlog

from shared.database import Database
from shared.processes.loops import run_steps
from shared.settings import Settings
from shared.tables import TrainingRun
from shared.training.tasks import TaskClaim
from shared.vocabulary.states import TaskState
from trainer.process import TRAINER_PID

log = structlog.get_logger()


def command_of(claim: TaskClaim, settings: Settings) -> list[str]:
    """Return the command that does a task: torchrun for a training, and for an evaluation with several ranks."""
    task = ["trainer.process", claim.kind, str(claim.task_id), claim.owner, str(claim.attempt)]
    if claim.kind == "training":
        return torchrun(settings, ranks_here(settings), f"{claim.task_id}-{claim.attempt}", task)
    if claim.kind == "evaluation" and (ranks := ranks_here(settings)) > 1:
        return torchrun(settings.model_copy(update={"trainer_nodes": 1}), ranks, str(claim.task_id), task)
    return [sys.executable, "-m", *task]


def torchrun(settings: Settings, ranks: int, meeting: str, module: Sequence[str]) -> list[str]:
    """Return torchrun's command for a module. Several machines meet at the rendezvous under the name `meeting`."""
    several = settings.trainer_nodes > 1
    return [
        sys.executable,
        "-m",
        "torch.distributed.run",
        f"--nnodes={settings.trainer_nodes}",
        f"--nproc-per-node={ranks}",
        "--max-restarts=0",
        "--rdzv-backend=c10d",
        f"--rdzv-endpoint={settings.trainer_rendezvous if several else 'localhost:0'}",
        f"--rdzv-id={meeting}",
        f"--rdzv-conf=is_host={int(settings.trainer_node_rank == 0)}",
        f"--log-dir={os.devnull}",  # output goes to stdout; no log folder stays behind
        "-m",
        *module,
    ]


def ranks_here(settings: Settings) -> int:
    """Return the number of ranks on this machine: as set, else one per GPU, else one."""
    if settings.trainer_processes:
        return settings.trainer_processes
    if settings.device == "cpu":
        return 1
    return max(1, _count_gpus())


@cache
def _count_gpus() -> int:
    """Count GPUs in a separate process, because importing PyTorch here would use hundreds of megabytes permanently."""
    count = "import torch; print(torch.cuda.device_count())"
    asked = subprocess.run([sys.executable, "-P", "-c", count], capture_output=True, text=True, check=True)
    return int(asked.stdout)


def follow(settings: Settings, database: Database, stop: threading.Event) -> None:
    """Join each training that the leading machine starts, until the stop flag is set."""
    joined: tuple[UUID, int] | None = None

    def step() -> None:
        nonlocal joined
        with database.begin() as session:
            running = (
                sa.select(TrainingRun.id, TrainingRun.attempt, TrainingRun.lease_owner)
                .where(TrainingRun.state == TaskState.RUNNING, TrainingRun.lease_expires_at > sa.func.now())
                .order_by(TrainingRun.started_at.desc())
                .limit(1)
            )
            row = session.execute(running).first()
        if row is None or (row.id, row.attempt) == joined:
            return
        joined = row.id, row.attempt
        log.info("training_joined", training_id=str(row.id), attempt=row.attempt)
        task = ["trainer.process", "training", str(row.id), row.lease_owner, str(row.attempt)]
        environ = os.environ | {TRAINER_PID: str(os.getpid()), "PYTHONSAFEPATH": "1"}
        command = torchrun(settings, ranks_here(settings), f"{row.id}-{row.attempt}", task)
        with subprocess.Popen(command, env=environ) as process:
            while process.poll() is None:
                if stop.wait(1):
                    process.terminate()
                    break

    run_steps("follower", step, stop, every_s=settings.trainer_poll_s)
