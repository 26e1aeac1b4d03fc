"""Chooses the anchors and regions that a head learns from, independently for each image.

torchvision draws them from one random stream for the whole process, so an image's sample depends on the images before
it. Here it depends only on the image's seed: two ranks with batch size b compute the same as one with batch size 2b,
and a resumed training continues as without the interruption.
"""

import torch
from torch import Tensor


class SeededSampler:
    """Samples at most `per_image` matches; `positive_share` of them are positive if there are enough.

    It replaces torchvision's `BalancedPositiveNegativeSampler` in the RPN and in the box head.
    """

    def __init__(self, per_image: int, positive_share: float) -> None:
        self._per_image = per_image
        self._positive_share = positive_share
        #: One seed for each image of the batch; set before each forward pass.
        self.seeds: list[int] = []

    def __call__(self, matches: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Return a mask of the positives and a mask of the negatives sampled from each image's `matches`.

        In matches [n], values from 1 are positives, 0 is a negative, and values below 0 are ignored.
        """
        masks = [self._draw(match, seed) for match, seed in zip(matches, self.seeds, strict=True)]
        return [positive for positive, _ in masks], [negative for _, negative in masks]

    def _draw(self, match: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        # On the CPU, so that CPU and GPU give the same sample.
        generator = torch.Generator().manual_seed(seed)
        positives, negatives = torch.where(match >= 1)[0], torch.where(match == 0)[0]
        wanted = min(len(positives), int(self._per_image * self._positive_share))
        positive = _mask(match, positives, wanted, generator)
        return positive, _mask(match, negatives, min(len(negatives), self._per_image - wanted), generator)


def _mask(match: Tensor, candidates: Tensor, count: int, generator: torch.Generator) -> Tensor:
    mask = torch.zeros_like(match, dtype=torch.uint8)
    chosen = torch.randperm(len(candidates), generator=generator)[:count]
    mask[candidates[chosen.to(candidates.device)]] = 1
    return mask
