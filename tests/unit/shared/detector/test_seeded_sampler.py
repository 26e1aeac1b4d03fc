"""What the heads learn from depends on the image's own seed, and balances as torchvision's sampler does."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler

from shared.detector.families.seeded_sampler import SeededSampler


@given(
    positives=st.integers(0, 30), negatives=st.integers(0, 60), ignored=st.integers(0, 5), per_image=st.integers(1, 40)
)
def test_as_many_are_drawn_as_by_torchvision(positives: int, negatives: int, ignored: int, per_image: int) -> None:
    match = torch.tensor([2] * positives + [0] * negatives + [-1] * ignored)
    ours, theirs = SeededSampler(per_image, 0.25), BalancedPositiveNegativeSampler(per_image, 0.25)
    ours.seeds = [5]
    ((positive,), (negative,)), ((their_positive,), (their_negative,)) = ours([match]), theirs([match])
    assert positive.sum() == their_positive.sum()
    assert negative.sum() == their_negative.sum()
    assert (match[positive.bool()] >= 1).all()
    assert (match[negative.bool()] == 0).all()


def test_an_images_draw_does_not_depend_on_its_company() -> None:
    matches = [torch.randint(-1, 3, (200,), generator=torch.Generator().manual_seed(n)) for n in range(3)]
    together, alone = SeededSampler(32, 0.5), SeededSampler(32, 0.5)
    together.seeds = [1, 2, 3]
    positives, negatives = together(matches)
    for seed, match, positive, negative in zip((1, 2, 3), matches, positives, negatives, strict=True):
        alone.seeds = [seed]
        ((own_positive,), (own_negative,)) = alone([match])
        assert torch.equal(own_positive, positive)
        assert torch.equal(own_negative, negative)
    alone.seeds = [4]
    assert not torch.equal(alone([matches[0]])[1][0], negatives[0])
