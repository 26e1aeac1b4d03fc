"""Chooses the anchors and regions that a head learns from, independently for each image.

torchvision draws them from one random stream for the whole process, so that an image's draw depends on the images
before it. Here it depends on the image's own seed: two ranks of batch b compute the same as one of batch 2b, and a
resumed run continues as it would have without the interruption.
"""

import torch
from torch import Tensor


class SeededSampler:
    """Draws at most `per_image` matches, `positive_share` of them positive where there are enough.

    As torchvision's `BalancedPositiveNegativeSampler`, whose place it takes in the RPN and in the box head.
    """

    def __init__(self, per_image: int, positive_share: float) -> None:
        self._per_image = per_image
        self._positive_share = positive_share
        #: Of the images to come, one each; set before every forward pass.
        self.seeds: list[int] = []
        #: Drawn in the last pass: what its losses are means over.
        self.drawn = 0

    def __call__(self, matches: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Return a mask of the positives and one of the negatives drawn from each image's `matches`.

        Of matches, each [n], 1 and above is a positive, 0 a negative, and below counts for nothing.
        """
        masks = [self._draw(match, seed) for match, seed in zip(matches, self.seeds, strict=True)]
        self.drawn = sum(int(mask.sum()) for pair in masks for mask in pair)
        return [positive for positive, _ in masks], [negative for _, negative in masks]

    def _draw(self, match: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        # On the CPU, so that a GPU draws the same.
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
