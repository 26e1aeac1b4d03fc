"""The abnormality head: the probability that an image shows any finding, from the feature pyramid of a detector.

An image-level classifier beside the detector raised the score of a Faster R-CNN in the VinBigData challenge, because it
lowers the scores of boxes on normal images (10.1109/ATC52653.2021.9598342). Here it shares the detector's features.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

LOSS = "loss_abnormality"
#: The prefix of its weights in a checkpoint.
PREFIX = "abnormality."
#: Only so many levels, the coarsest ones, are pooled: finer ones are large and would take longer than the head itself.
_LEVELS = 3
_HIDDEN = 64


class AbnormalityHead(nn.Module):
    """Pools the mean and the maximum of each level, and maps them to one logit by two fully connected layers."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(2 * _LEVELS * channels, _HIDDEN)
        self.score = nn.Linear(_HIDDEN, 1)

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        """Return a logit for each image, float32 [B], from the levels of the pyramid, finest first, [B, C, h, w]."""
        levels = [level.float() for level in list(features.values())[-_LEVELS:]]
        pooled = [pool for level in levels for pool in (level.mean((2, 3)), level.amax((2, 3)))]
        logits: Tensor = self.score(self.hidden(torch.cat(pooled, dim=1)).relu())
        return logits.squeeze(1)


def add_head(model: Any) -> None:
    """Add the head to a network with `backbone`; its weights are random."""
    model.abnormality = AbnormalityHead(model.backbone.out_channels)


def head_of(model: nn.Module) -> AbnormalityHead | None:
    """Return the head of a network, if it has one."""
    return getattr(model, "abnormality", None)


def weigh(rows: Tensor, probabilities: Tensor, exponent: float) -> Tensor:
    """Return detections, [B, D, 6], with scores multiplied by their image's probability [B] to the power `exponent`."""
    factors = probabilities.pow(exponent)[:, None, None]
    return torch.cat((rows[..., :4], rows[..., 4:5] * factors, rows[..., 5:]), dim=2)
