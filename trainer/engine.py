"""One epoch of training: the steps, their losses, and everything that they change."""

import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils._pytree import tree_map
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.image_list import ImageList

from shared.detector.card import ModelCard
from shared.detector.runtime import choose_precision
from shared.errors import PermanentError
from shared.training.config import TrainingConfig
from trainer.optimization import Average, learning_rate, make_optimizer
from trainer.ranks import Ranks
from trainer.regions import seed_samplers

LOSSES = ("loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg")


class NonFiniteLoss(PermanentError):
    """The loss or its gradient is not a finite number. Lower the learning rate."""

    code = "non_finite_loss"

    def __init__(self, image_ids: Sequence[int], batches: Sequence["Batch"], keys: Sequence[str] = ()) -> None:
        #: The images of all ranks in that step, and what this rank made of its own.
        self.image_ids = sorted(set(image_ids))
        self.batches = batches
        kept = f" The step's batches are kept as {', '.join(keys)}." if keys else ""
        super().__init__(
            f"The loss or its gradient is not a finite number in the step with the images {self.image_ids}.{kept} "
            "A look at these films may help; so may a smaller learning rate, a longer warm-up or fp32."
        )

    def kept_under(self, keys: Sequence[str]) -> "NonFiniteLoss":
        """Return the same error, which says where the ranks' batches are."""
        return NonFiniteLoss(self.image_ids, self.batches, keys)


@dataclass(frozen=True)
class Batch:
    """Films on the canvas, with their boxes."""

    canvases: Tensor  # uint8 [B, S, S]
    boxes: list[Tensor]  # float32 [n, 4] xyxy in canvas pixels
    labels: list[Tensor]  # int64 [n], from 1
    image_ids: list[int]
    #: What each image's regions are drawn from.
    seeds: list[int]
    #: False for the stand-in of a rank that has no images in this pass.
    counts: bool = True

    def to(self, device: torch.device) -> "Batch":
        """Return the batch on a device."""
        if device.type == "cpu":
            return self
        move = [[tensor.to(device, non_blocking=True) for tensor in tensors] for tensors in (self.boxes, self.labels)]
        canvases = self.canvases.pin_memory().to(device, non_blocking=True)
        return Batch(canvases, move[0], move[1], self.image_ids, self.seeds, self.counts)


class Losses(nn.Module):
    """Faster R-CNN's four losses of a batch, as means over the anchors and regions of all ranks."""

    def __init__(self, model: FasterRCNN, card: ModelCard, ranks: Ranks, *, bf16: bool, channels_last: bool) -> None:
        super().__init__()
        self.model = model
        self._ranks = ranks
        self._bf16 = bf16
        self._format = torch.channels_last if channels_last else torch.contiguous_format
        self._samplers = seed_samplers(model)
        self._mean = 255 * torch.tensor(card.image_mean, device=ranks.device)[:, None, None]  # [3, 1, 1], of 8 bits
        self._std = 255 * torch.tensor(card.image_std, device=ranks.device)[:, None, None]

    def forward(self, batch: Batch) -> Tensor:
        """Return the losses in the order of `LOSSES`, float32 [4]; their mean over the ranks is the loss of all."""
        for sampler in self._samplers:
            sampler.seeds = batch.seeds
        with torch.autocast(self._ranks.device.type, torch.bfloat16, enabled=self._bf16):
            losses = compute_losses(self.model, self._normalise(batch.canvases), batch.boxes, batch.labels)
        # torchvision divides by the number drawn on this rank; what counts is the number drawn on all.
        drawn = [batch.counts * sampler.drawn for sampler in self._samplers]
        of_all = self._ranks.sum(drawn)
        share = [self._ranks.world * own / max(total, 1) for own, total in zip(drawn, of_all, strict=True)]
        weights = torch.tensor([share[0], share[0], share[1], share[1]], device=batch.canvases.device)
        return torch.stack([losses[name].float() for name in LOSSES]) * weights

    def _normalise(self, canvases: Tensor) -> Tensor:
        images: Tensor = (canvases[:, None].float() - self._mean) / self._std  # [B, 3, S, S]
        return images.contiguous(memory_format=self._format)


class Trainee:
    """Everything that training changes: the model, its moving average and the optimizer's memory."""

    def __init__(self, model: FasterRCNN, card: ModelCard, config: TrainingConfig, ranks: Ranks) -> None:
        self.config = config
        self.ranks = ranks
        self.model = model.to(
            ranks.device, memory_format=torch.channels_last if config.channels_last else torch.preserve_format
        )
        keep_boxes_in_float32(model)
        precision = choose_precision(ranks.device) if config.precision == "auto" else config.precision
        self.losses: nn.Module = Losses(
            model, card, ranks, bf16=precision == "bf16", channels_last=config.channels_last
        )
        if ranks.world > 1:
            with warnings.catch_warnings():
                # Its successor, `forward_sync_buffers`, is not in every release of PyTorch that we run on.
                warnings.simplefilter("ignore", FutureWarning)
                self.losses = DistributedDataParallel(self.losses, broadcast_buffers=False)
        self.optimizer = make_optimizer(model, config)
        self.average = Average(model, config.ema_decay)

    def state_dict(self) -> dict[str, object]:
        """Return everything, to be loaded again."""
        parts = {"model": self.model, "average": self.average, "optimizer": self.optimizer}
        return {name: part.state_dict() for name, part in parts.items()}

    def load_state_dict(self, state: Mapping[str, dict[str, object]]) -> None:
        """Take everything back to where it was."""
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])


def train_one_epoch(
    trainee: Trainee, steps: Iterable[list[Batch]], epoch: int, first_step: int, step_count: int
) -> Iterator[dict[str, float]]:
    """Train on each step's batches, and yield its losses and learning rate after it; raises `NonFiniteLoss`."""
    config, ranks = trainee.config, trainee.ranks
    set_training(trainee.model, batch_norm=config.train_batch_norm)
    for step, batches in enumerate(steps, start=first_step):
        # The position is all the randomness there is, so that a resumed run goes on as it would have.
        torch.manual_seed(hash((config.seed, epoch, step, ranks.rank)))
        rate = learning_rate(config, ranks.world, epoch + step / step_count)
        for group in trainee.optimizer.param_groups:
            group["lr"] = rate

        trainee.optimizer.zero_grad()
        losses = torch.zeros(len(LOSSES), device=ranks.device)
        for number, batch in enumerate(batches, start=1):
            with _gradients_stay_here(trainee.losses, more_to_come=number < len(batches)):
                part = trainee.losses(batch.to(ranks.device)) / len(batches)
                part.sum().backward()
            losses += part.detach()

        means = [total / ranks.world for total in ranks.sum(losses.tolist())]
        norm = nn.utils.clip_grad_norm_(trainee.model.parameters(), config.clip_norm or math.inf)
        if not math.isfinite(sum(means)) or not norm.isfinite():
            of_all = ranks.gather([id_ for batch in batches if batch.counts for id_ in batch.image_ids])
            raise NonFiniteLoss([id_ for ids in of_all for id_ in ids], batches)
        trainee.optimizer.step()
        trainee.average.update(trainee.model)
        yield {**dict(zip(LOSSES, means, strict=True)), "loss": sum(means), "learning_rate": rate}


def compute_losses(model: FasterRCNN, images: Tensor, boxes: list[Tensor], labels: list[Tensor]) -> dict[str, Tensor]:
    """Return the losses of proposals and of regions; images float32 [B, 3, S, S], normalised, boxes as in `Batch`."""
    targets = [{"boxes": own, "labels": names} for own, names in zip(boxes, labels, strict=True)]
    sizes = [(images.shape[2], images.shape[3])] * len(images)
    features = model.backbone(images)
    proposals, proposal_losses = model.rpn(ImageList(images, sizes), features, targets)
    _, region_losses = model.roi_heads(features, proposals, sizes, targets)
    return {**proposal_losses, **region_losses}


def keep_boxes_in_float32(model: FasterRCNN) -> None:
    """Let a model train under bf16 autocast: what boxes are computed from leaves its heads as float32.

    bf16 has 8 bits of precision, so that an edge at 300 pixels would be one pixel off or more.
    """
    for module in (model.backbone, model.rpn.head, model.roi_heads.box_predictor):
        module.register_forward_hook(lambda _module, _inputs, outputs: tree_map(lambda t: t.float(), outputs))


def set_training(model: FasterRCNN, *, batch_norm: bool = False) -> None:
    """Put a model in training mode; batch norm keeps the statistics that it came with unless it is to learn."""
    model.train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            frozen = not any(weight.requires_grad for weight in module.parameters())
            module.train(batch_norm and not frozen)


def _gradients_stay_here(losses: nn.Module, *, more_to_come: bool) -> AbstractContextManager[None]:
    """Leave the exchange of gradients to the last pass of a step."""
    if more_to_come and isinstance(losses, DistributedDataParallel):
        waiting: AbstractContextManager[None] = losses.no_sync()
        return waiting
    return nullcontext()
