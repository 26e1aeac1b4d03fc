"""The optimizer of the weights, its learning rate, and the moving average of the weights."""

import math
from bisect import bisect_right

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.swa_utils import AveragedModel

from shared.training.config import TrainingConfig

#: Factor of the learning rate at the first step of the warm-up.
WARMUP_FROM = 1e-3


def make_optimizer(model: nn.Module, config: TrainingConfig) -> Optimizer:
    """Return the optimizer of the trainable weights; norms and biases have no weight decay."""
    kernels = [weight for weight in model.parameters() if weight.requires_grad and weight.ndim > 1]
    vectors = [weight for weight in model.parameters() if weight.requires_grad and weight.ndim <= 1]
    groups = [{"params": kernels, "weight_decay": config.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    if config.optimizer == "adamw":
        return AdamW(groups, lr=config.learning_rate, betas=(config.momentum, 0.999))
    return SGD(groups, lr=config.learning_rate, momentum=config.momentum)


def learning_rate(
    config: TrainingConfig, world: int, epochs_done: float, steps_done: int = 0, steps_in_epoch: int = 1
) -> float:
    """Return the learning rate at a point of the training."""
    factor = float(world if config.scale_learning_rate else 1)
    warmup_epochs, warmed_up = config.warmup_epochs, 1.0
    if config.warmup_steps is not None:
        warmup_epochs = config.warmup_steps / steps_in_epoch
        if steps_done < config.warmup_steps:
            warmed_up = steps_done / config.warmup_steps
    elif epochs_done < warmup_epochs:
        warmed_up = epochs_done / warmup_epochs
    if warmed_up < 1:
        factor *= WARMUP_FROM + (1 - WARMUP_FROM) * warmed_up
    if config.schedule == "multistep":
        factor *= config.gamma ** bisect_right(config.milestones, epochs_done)
    elif warmed_up == 1:
        done = max(0.0, epochs_done - warmup_epochs) / max(config.epochs - warmup_epochs, 1e-9)
        factor *= 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
    return config.learning_rate * factor


class Average:
    """The exponential moving average (EMA) of a model's weights; without a decay, the model's current weights."""

    def __init__(self, model: nn.Module, decay: float | None) -> None:
        self._last = model
        self._averaged = None if decay is None else AveragedModel(model, multi_avg_fn=_moving(decay))

    @property
    def model(self) -> nn.Module:
        """Return the model with the averaged weights."""
        return self._last if self._averaged is None else self._averaged.module

    def update(self, model: nn.Module) -> None:
        """Add the weights after a step to the average."""
        if self._averaged is not None:
            self._averaged.update_parameters(model)

    def state_dict(self) -> dict[str, object]:
        """Return the average, to be restored later."""
        return {} if self._averaged is None else self._averaged.state_dict()

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Restore the average."""
        if self._averaged is not None:
            self._averaged.load_state_dict(state)


def _moving(decay: float):  # type: ignore[no-untyped-def]
    @torch.no_grad()
    def update(averages: list[Tensor], weights: list[Tensor], steps: Tensor) -> None:
        # The average forgets the weights of the first steps faster, because they are the worst.
        kept = min(decay, (1 + float(steps)) / (10 + float(steps)))
        torch._foreach_lerp_(averages, weights, 1 - kept)

    return update
