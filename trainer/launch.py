"""Starts the processes of a task: alone, by torchrun on this machine, or by torchrun on several machines."""

import os
import subprocess
import sys
from collections.abc import Sequence
from functools import cache

from shared.settings import Settings
from shared.training.tasks import TaskClaim
from trainer.group import Group


def command_of(claim: TaskClaim, settings: Settings, group: Group | None = None, machines: int = 1) -> list[str]:
    """Return the command that does a task: torchrun for a training, and for an evaluation with several ranks."""
    task = ["trainer.process", claim.kind, str(claim.task_id), claim.owner, str(claim.attempt)]
    ranks = ranks_here(settings)
    if claim.kind == "training":
        meeting = f"{claim.task_id}-{claim.attempt}"
        return torchrun(ranks, meeting, task, group=group, machines=machines, join_s=settings.trainer_join_timeout_s)
    if claim.kind == "evaluation" and ranks > 1:
        return torchrun(ranks, str(claim.task_id), task)
    return [sys.executable, "-m", *task]


def torchrun(
    ranks: int,
    meeting: str,
    module: Sequence[str],
    *,
    group: Group | None = None,
    node: int = 0,
    machines: int = 1,
    join_s: float = 0,
) -> list[str]:
    """Return torchrun's command for a module, with `ranks` processes here.

    The machines of a group meet at its rendezvous under the name `meeting`; this one is number `node` of `machines`.
    The leader has chosen them before, so torchrun gets their exact number.
    """
    if group is None or machines == 1:
        where = ["--nnodes=1", "--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0"]
    else:
        where = [
            f"--nnodes={machines}",
            f"--node-rank={node}",
            "--rdzv-backend=static",
            f"--rdzv-endpoint={group.rendezvous}",
            f"--rdzv-conf=timeout={max(60, round(join_s))}",
            f"--local-addr={group.address}",
        ]
    return [
        *(sys.executable, "-m", "torch.distributed.run"),
        *where,
        f"--nproc-per-node={ranks}",
        "--max-restarts=0",
        f"--rdzv-id={meeting}",
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
