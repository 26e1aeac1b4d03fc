"""The order of the training images. It depends only on config and epoch, so that a resumed run continues unchanged."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shared.training.config import TrainingConfig
from trainer.datasets.dataset import DatasetImage


@dataclass(frozen=True)
class Share:
    """The images of one rank in one forward pass."""

    #: Indices of the training images, and the seed of each image's random numbers. Both can be empty.
    images: NDArray[np.int64]  # [b]
    seeds: list[tuple[int, int, int]]  # (seed, epoch, place in the epoch)


def plan_epoch(images: Sequence[DatasetImage], config: TrainingConfig, epoch: int) -> NDArray[np.int64]:
    """Return the image indices of an epoch in order, int64 [n]; n is `images_per_epoch` or about the number of images.

    Images without a finding are taken at the rate `normal_rate`; images of rare classes are repeated
    (`repeat_factors`).
    """
    factors = repeat_factors(images, config.repeat_threshold)
    normal = np.array([not len(image.category_ids) for image in images])
    factors[normal] *= config.normal_rate
    most = config.images_per_epoch
    rounds: list[NDArray[np.int64]] = []
    while not rounds or (most is not None and sum(map(len, rounds)) < most):
        rng = np.random.default_rng((config.seed, epoch, len(rounds)))
        # Stochastic rounding, so that the mean frequency of each image over the epochs equals its factor.
        times = np.floor(factors + rng.random(len(images))).astype(np.int64)
        rounds.append(rng.permutation(np.repeat(np.arange(len(images)), times)))
    return np.concatenate(rounds)[:most]


def repeat_factors(images: Sequence[DatasetImage], threshold: float) -> NDArray[np.float64]:
    """Return each image's frequency in an epoch, at least 1, float64 [n] (LVIS, arXiv:1908.03195, section 3.2)."""
    present = [set(image.category_ids.tolist()) for image in images]
    counts = Counter(category_id for classes in present for category_id in classes)
    factor = {id_: max(1.0, (threshold * len(images) / count) ** 0.5) for id_, count in counts.items()}
    return np.array([max((factor[id_] for id_ in classes), default=1.0) for classes in present])


def steps_of(images: int, config: TrainingConfig, world: int) -> int:
    """Return the number of optimizer steps in an epoch of `images`; the last step can be smaller."""
    return -(-images // (config.batch_size * config.accumulate * world))


def shares(
    plan: NDArray[np.int64], config: TrainingConfig, epoch: int, rank: int, world: int, first_step: int = 0
) -> Iterator[list[Share]]:
    """Yield for each step from `first_step` the shares of this rank in the forward passes.

    Ranks take adjacent parts, so that two ranks with batch size b see the same images as one rank with 2b. A pass
    without images on any rank is left out.
    """
    together = config.batch_size * world
    for step in range(first_step, steps_of(len(plan), config, world)):
        start = step * together * config.accumulate
        passes = [start + together * number for number in range(config.accumulate)]
        yield [
            _share(plan, config, epoch, begin + rank * config.batch_size, min(begin + together, len(plan)))
            for begin in passes
            if begin < len(plan)
        ]


def _share(plan: NDArray[np.int64], config: TrainingConfig, epoch: int, begin: int, end: int) -> Share:
    places = range(begin, min(begin + config.batch_size, end))
    return Share(plan[places.start : max(places.start, places.stop)], [(config.seed, epoch, p) for p in places])
