"""Folds batch norm into convolutions: at inference, it is only a scale and a shift per channel."""

from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d


@torch.no_grad()
def fold_batch_norm(network: nn.Module) -> None:
    """Fold each batch norm into the convolution registered directly before it, in place. Only for inference.

    This saves a pass over each feature map. It also keeps a bf16 network in bf16: the float32 parameters of frozen
    batch norm would convert it back to float32.
    """
    for parent in network.modules():
        for (_, layer), (name, norm) in pairwise(list(parent.named_children())):
            if isinstance(layer, nn.Conv2d) and isinstance(norm, FrozenBatchNorm2d | nn.BatchNorm2d):
                _fold(layer, norm)
                setattr(parent, name, nn.Identity())


def _fold(layer: nn.Conv2d, norm: Any) -> None:
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)  # [C]
    shift = norm.bias - norm.running_mean * scale
    if layer.bias is not None:
        shift = shift + layer.bias * scale
    layer.weight.mul_(scale[:, None, None, None])
    layer.bias = nn.Parameter(shift, requires_grad=layer.weight.requires_grad)
