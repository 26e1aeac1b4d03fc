"""One epoch of training: the steps, their losses, and the state that they change."""

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.nn.parallel import DistributedDataParallel

from shared.detector.card import ModelCard
from shared.detector.families import family_of, loss_names
from shared.detector.families.abnormality import head_of
from shared.detector.families.targets import Targets
from shared.detector.runtime import choose_precision
from shared.errors import PermanentError
from shared.training.config import TrainingConfig
from trainer.optimization import Average, learning_rate, make_optimizer
from trainer.ranks import Ranks

#: The weight of the abnormality head's loss if the config states none.
ABNORMALITY_LOSS = 0.2


class NonFiniteLoss(PermanentError):
    """The loss or its gradient is not a finite number. Lower the learning rate."""

    code = "non_finite_loss"

    def __init__(self, image_ids: Sequence[int], batches: Sequence["Batch"], keys: Sequence[str] = ()) -> None:
        #: The images of all ranks in this step, and the batches of this rank.
        self.image_ids = sorted(set(image_ids))
        self.batches = batches
        kept = f" The step's batches are kept as {', '.join(keys)}." if keys else ""
        super().__init__(
            f"The loss or its gradient is not a finite number in the step with the images {self.image_ids}.{kept} "
            "Check these images, or try a smaller learning rate, a longer warm-up or fp32."
        )

    def kept_under(self, keys: Sequence[str]) -> "NonFiniteLoss":
        """Return the same error with the keys of the stored batches."""
        return NonFiniteLoss(self.image_ids, self.batches, keys)


@dataclass(frozen=True)
class Batch:
    """Images on the canvas, with their boxes."""

    canvases: Tensor  # uint8 [B, S, S]
    boxes: list[Tensor]  # float32 [n, 4] xyxy in canvas pixels
    labels: list[Tensor]  # int64 [n], from 1
    confidences: list[Tensor]  # float32 [n] in 0–1: see `Targets`
    image_ids: list[int]
    #: One seed per image, used to sample its anchors and regions.
    seeds: list[int]
    #: The weight of this rank's mean loss; 0 for the placeholder of a rank that has no images in this pass.
    weight: float = 1.0

    def to(self, device: torch.device) -> "Batch":
        """Return the batch on a device."""
        if device.type == "cpu":
            return self
        boxes, labels, confidences = (
            [tensor.to(device, non_blocking=True) for tensor in tensors]
            for tensors in (self.boxes, self.labels, self.confidences)
        )
        canvases = self.canvases.pin_memory().to(device, non_blocking=True)
        return Batch(canvases, boxes, labels, confidences, self.image_ids, self.seeds, self.weight)


class Losses(nn.Module):
    """The loss of a batch, as this rank's part of the mean over the images of all ranks.

    Ranks exchange only gradients, once per step. The losses and the request to stop are sent to the other ranks in this
    exchange: they are the gradient of `carried`, a parameter without any other effect.
    """

    def __init__(
        self,
        model: nn.Module,
        card: ModelCard,
        ranks: Ranks,
        *,
        bf16: bool,
        channels_last: bool,
        abnormality_loss: float | None = None,
    ) -> None:
        super().__init__()
        self.model: Any = model
        self._head = head_of(model)
        self._abnormality_loss = ABNORMALITY_LOSS if abnormality_loss is None else abnormality_loss
        self._device = ranks.device
        self._bf16 = bf16
        self._format = torch.channels_last if channels_last else torch.contiguous_format
        self._losses = family_of(card.architecture).make_losses(model, card)
        self._mean = 255 * torch.tensor(card.image_mean, device=ranks.device)[:, None, None]  # [3, 1, 1], of 8 bits
        self._std = 255 * torch.tensor(card.image_std, device=ranks.device)[:, None, None]
        self.carried = nn.Parameter(torch.zeros(len(loss_names(card)) + 1, device=ranks.device))

    def forward(self, batch: Batch, stop: bool) -> Tensor:
        """Return the sum of the losses. After `backward`, `carried` has the losses and `stop` as its gradient."""
        targets = [Targets(*each) for each in zip(batch.boxes, batch.labels, batch.confidences, strict=True)]
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._bf16):
            images = self._normalise(batch.canvases)
            features = self.model.backbone(images)
            losses = self._losses(images, features, targets, batch.seeds).float()
        if self._head is not None:
            logits = self._head(features)
            abnormal = logits.new_tensor([float(len(labels) > 0) for labels in batch.labels])
            loss = self._abnormality_loss * binary_cross_entropy_with_logits(logits, abnormal)
            losses = torch.cat((losses, loss[None]))
        losses = losses * batch.weight
        numbers = torch.cat((losses.detach(), losses.new_tensor([stop])))
        return losses.sum() + (self.carried * numbers).sum()

    def _normalise(self, canvases: Tensor) -> Tensor:
        images: Tensor = (canvases[:, None].float() - self._mean) / self._std  # [B, 3, S, S]
        return images.contiguous(memory_format=self._format)


class Trainee:
    """The state that training changes: the model, its moving average and the optimizer."""

    def __init__(self, model: nn.Module, card: ModelCard, config: TrainingConfig, ranks: Ranks) -> None:
        self.config = config
        self.ranks = ranks
        #: Images of all ranks in a step.
        self.together = config.batch_size * config.accumulate * ranks.world
        self.model = model.to(ranks.device)
        if config.channels_last:
            self.model.to(memory_format=torch.channels_last)
        precision = choose_precision(ranks.device) if config.precision == "auto" else config.precision
        losses = Losses(
            model,
            card,
            ranks,
            bf16=precision == "bf16",
            channels_last=config.channels_last,
            abnormality_loss=config.abnormality_loss,
        )
        self.loss_names = loss_names(card)
        self.carried = losses.carried
        self.losses: nn.Module = losses
        if ranks.world > 1:
            with warnings.catch_warnings():
                # Its successor, `forward_sync_buffers`, is not in all supported releases of PyTorch.
                warnings.simplefilter("ignore", FutureWarning)
                self.losses = DistributedDataParallel(self.losses, broadcast_buffers=False)
        self.optimizer = make_optimizer(model, config)
        self.average = Average(model, config.ema_decay)

    def state_dict(self) -> dict[str, object]:
        """Return the complete state."""
        parts: dict[str, Any] = {"model": self.model, "average": self.average, "optimizer": self.optimizer}
        return {name: part.state_dict() for name, part in parts.items()}

    def load_state_dict(self, state: Mapping[str, dict[str, object]]) -> None:
        """Restore the complete state."""
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])


def train_one_epoch(
    trainee: Trainee,
    steps: Iterable[list[Batch]],
    epoch: int,
    first_step: int,
    step_count: int,
    steps_done: int = 0,
    must_stop: Callable[[], bool] = lambda: False,
) -> Iterator[tuple[dict[str, float], bool]]:
    """Train on the batches of each step. Raises `NonFiniteLoss`.

    Yields the step's losses and learning rate, and whether `must_stop` was true on any rank; the same on all ranks.
    """
    config, ranks = trainee.config, trainee.ranks
    set_training(trainee.model, batch_norm=config.train_batch_norm)
    for step, batches in enumerate(steps, start=first_step):
        # Random numbers depend only on the position, so that a resumed run gives the same result as an uninterrupted
        # one.
        torch.manual_seed(hash((config.seed, epoch, step, ranks.rank)))
        rate = learning_rate(config, ranks.world, epoch + step / step_count, steps_done + step - first_step, step_count)
        for group in trainee.optimizer.param_groups:
            group["lr"] = rate

        trainee.optimizer.zero_grad()
        trainee.carried.grad = None
        for number, batch in enumerate(batches, start=1):
            more = number < len(batches)
            with _gradients_stay_here(trainee.losses, more_to_come=more):
                loss = trainee.losses(batch.to(ranks.device), not more and must_stop())
                (loss / len(batches)).backward()

        norm = nn.utils.clip_grad_norm_(trainee.model.parameters(), config.clip_norm or math.inf)
        assert trainee.carried.grad is not None
        *means, stop, norm_value = torch.cat((trainee.carried.grad, norm[None].float())).tolist()
        if not math.isfinite(sum(means) + norm_value):
            of_all = ranks.gather([id_ for batch in batches if batch.weight for id_ in batch.image_ids])
            raise NonFiniteLoss([id_ for ids in of_all for id_ in ids], batches)
        trainee.optimizer.step()
        trainee.average.update(trainee.model)
        yield {**dict(zip(trainee.loss_names, means, strict=True)), "loss": sum(means), "learning_rate": rate}, stop > 0


def set_training(model: nn.Module, *, batch_norm: bool = False) -> None:
    """Set a model to training mode; batch norm keeps its statistics unless `batch_norm` is set."""
    model.train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | nn.SyncBatchNorm):
            frozen = not any(weight.requires_grad for weight in module.parameters())
            module.train(batch_norm and not frozen)


def _gradients_stay_here(losses: nn.Module, *, more_to_come: bool) -> AbstractContextManager[None]:
    """Exchange gradients between ranks only in the last pass of a step."""
    if more_to_come and isinstance(losses, DistributedDataParallel):
        waiting: AbstractContextManager[None] = losses.no_sync()
        return waiting
    return nullcontext()
