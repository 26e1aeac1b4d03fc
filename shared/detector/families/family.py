"""The interface of a family of networks for the runtime, the trainer and the import of checkpoints."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map
from torchvision.ops import FrozenBatchNorm2d

from shared.detector.architectures import Architecture
from shared.detector.card import ModelCard
from shared.detector.families.targets import Targets

#: The levels of a feature pyramid by name, finest first, [B, C, h, w].
Pyramid = Mapping[str, Tensor]


@dataclass(frozen=True)
class Plan:
    """The hallmark of an architecture, and the defaults of its cards."""

    #: Names of weights that identify a checkpoint of the architecture.
    hallmark: tuple[str, ...]
    canvas_px: int
    #: One tuple of sizes per level of the feature pyramid, finest first.
    anchor_sizes_px: tuple[tuple[float, ...], ...]
    #: Epsilon of batch norm in torchvision's COCO checkpoint.
    coco_batch_norm_eps: float = 1e-5


class Losses(Protocol):
    """The losses of one batch."""

    def __call__(self, images: Tensor, features: Pyramid, targets: list[Targets], seeds: list[int]) -> Tensor:
        """Return the losses, float32 [L] in the order of `Family.loss_names`, as means over the images.

        `images` is float32 [B, 3, S, S], normalised; `features` is their pyramid. `seeds` has a seed for each image,
        which determines all its random draws.
        """


#: Maps the pyramid of B images and their content's (width, height), [B, 2], to detections, float32 [B, max_detections,
#: 6]: box xyxy in canvas pixels, score, label. Label 0 marks an empty row. If the logits of an image are not finite,
#: all its rows are NaN.
Inference = Callable[[Pyramid, Tensor], Tensor]


class Family(ABC):
    """A family of networks. Each `model` is a result of `build`; its `backbone` maps images to a pyramid."""

    plans: Mapping[Architecture, Plan]
    #: The parts of the loss, with their names in the metrics of a training.
    loss_names: tuple[str, ...]

    @abstractmethod
    def build(self, card: ModelCard) -> nn.Module:
        """Return the card's network with random weights."""

    @abstractmethod
    def body(self, model: nn.Module) -> nn.Module:
        """Return the part that is initialised with ImageNet weights; its children are the stages that can be frozen."""

    @abstractmethod
    def make_losses(self, model: nn.Module, card: ModelCard) -> Losses:
        """Prepare a model for training, and return its losses."""

    @abstractmethod
    def make_inference(self, model: nn.Module, card: ModelCard, dtype: torch.dtype) -> Inference:
        """Cast the expensive layers of a model on its device to `dtype`, and return the pass from pyramid to boxes."""

    @abstractmethod
    def count_outputs(self, state: Mapping[str, Tensor]) -> int | None:
        """Return the number of classes of a checkpoint, background included; None if it cannot be determined."""

    @abstractmethod
    def count_anchors(self, state: Mapping[str, Tensor]) -> int | None:
        """Return the number of anchors per location of a checkpoint; None if it cannot be determined."""

    @abstractmethod
    def by_class(self, name: str, weight: Tensor, outputs: int) -> Tensor | None:
        """Return a weight of the last layer as a view [outputs, ...]; None for a weight of another layer."""


def count_rows(state: Mapping[str, Tensor], name: str) -> int | None:
    """Return the first dimension of a weight; None if there is no such weight."""
    return len(state[name]) if name in state and state[name].ndim else None


def set_batch_norm_eps(model: nn.Module, eps: float) -> None:
    """Set the epsilon of all batch norms, frozen or not."""
    norms: list[Any] = [each for each in model.modules() if isinstance(each, FrozenBatchNorm2d | nn.BatchNorm2d)]
    for norm in norms:
        norm.eps = eps


def keep_float32(*modules: nn.Module) -> None:
    """Make modules return float32 under bf16 autocast, because boxes are computed from their outputs.

    bf16 has 8 bits of precision, so an edge at 300 pixels would have an error of one pixel or more.
    """
    for module in modules:
        module.register_forward_hook(lambda _module, _inputs, outputs: tree_map(lambda t: t.float(), outputs))
