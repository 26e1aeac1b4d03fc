"""The processes of one run: the rank of this process, and the exchange of values other than gradients."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TypeVar

import torch
from torch import distributed

from shared.errors import TransientError

#: A rank fails if the other ranks do not answer for this long; the death of a rank is noticed immediately.
SILENCE = timedelta(minutes=10)

_T = TypeVar("_T")


class DeviceUnavailable(TransientError):
    """`CARINA_DEVICE` requires a GPU, and PyTorch finds none on this trainer."""

    code = "device_unavailable"


@dataclass(frozen=True)
class Ranks:
    """This process among the processes of the run. Each rank must enter each collective."""

    rank: int
    world: int
    device: torch.device
    #: The number of each rank's machine.
    machines: tuple[int, ...] = (0,)

    @property
    def is_first_here(self) -> bool:
        """Return whether this rank downloads for the other ranks of its machine."""
        return self.machines.index(self.machines[self.rank]) == self.rank

    @property
    def is_first(self) -> bool:
        """Return whether this rank reports and saves for the run."""
        return self.rank == 0

    def gather(self, value: _T) -> list[_T]:
        """Return the values of all ranks, in the order of the ranks."""
        if self.world == 1:
            return [value]
        values = [value] * self.world  # placeholders
        distributed.all_gather_object(values, value)
        return values


@contextmanager
def joined(device: str = "auto", threads: int = 0) -> Iterator[Ranks]:
    """Join the processes that torchrun started, or run alone.

    `device` is `auto`, `cpu` or `cuda`; `threads` is the number of CPU threads of PyTorch, 0 for its default. Raises
    `DeviceUnavailable`.
    """
    if threads:
        torch.set_num_threads(threads)
    on_gpu = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    place = torch.device("cuda", local_rank) if on_gpu else torch.device("cpu")
    if on_gpu:
        if not torch.cuda.is_available():
            raise DeviceUnavailable
        torch.cuda.set_device(place)
    if not distributed.is_torchelastic_launched():
        yield Ranks(0, 1, place)
        return
    # Gradients use NCCL between GPUs; exchanges on the CPU use Gloo.
    distributed.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo", timeout=SILENCE)
    try:
        ranks = Ranks(distributed.get_rank(), distributed.get_world_size(), place)
        yield replace(ranks, machines=tuple(ranks.gather(int(os.environ.get("GROUP_RANK", "0")))))
    finally:
        distributed.destroy_process_group()
