"""The order of the training images. It depends only on config and epoch, so that a resumed run continues unchanged."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shared.training.config import TrainingConfig
from trainer.datasets.dataset import DatasetImage
from trainer.ranks import Ranks


@dataclass(frozen=True)
class Share:
    """The images of one rank in one forward pass."""

    #: Indices of the training images, and the seed of each image's random numbers. Both can be empty.
    images: NDArray[np.int64]  # [b]
    seeds: list[tuple[int, int, int]]  # (seed, epoch, place in the epoch)
    #: The weight of this rank's mean loss in the mean over the ranks, so that each image of the pass counts the same.
    weight: float


def plan_epoch(
    images: Sequence[DatasetImage], config: TrainingConfig, epoch: int, machines: tuple[int, ...] = (0,)
) -> NDArray[np.int64]:
    """Return the image indices of an epoch in order, int64 [n]; n is `images_per_epoch` or about the number of images.

    Images without a finding are taken at the rate `normal_rate`; images of rare classes are repeated
    (`repeat_factors`). With several `machines` (see `Ranks`), each machine gets the same images in each epoch, except
    for a few at the end.
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
    plan = np.concatenate(rounds)[:most]
    if len(set(machines)) == 1:
        return plan
    places_of = np.array(machines)[np.arange(len(plan)) // config.batch_size % len(machines)]  # as `shares` deals them
    return _give_to_machines(plan, homes(images, machines)[plan], places_of)


def homes(images: Sequence[DatasetImage], machines: tuple[int, ...]) -> NDArray[np.int64]:
    """Return the machine that reads each image, [n]: as many for each rank, also of those without a finding."""
    normals_last = np.argsort([not len(image.category_ids) for image in images], kind="stable")
    home = np.empty(len(images), np.int64)
    home[normals_last] = np.array(machines)[np.arange(len(images)) % len(machines)]
    return home


def _give_to_machines(
    plan: NDArray[np.int64], shares_of: NDArray[np.int64], places_of: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Reorder a plan so that the images at the places of a machine's ranks are those of its share, all [n]."""
    ordered = np.full_like(plan, -1)
    left = np.ones(len(plan), bool)
    for machine in set(places_of.tolist()):
        own, places = np.flatnonzero(shares_of == machine), np.flatnonzero(places_of == machine)
        count = min(len(own), len(places))
        ordered[places[:count]] = plan[own[:count]]
        left[own[:count]] = False
    ordered[ordered < 0] = plan[left]
    return ordered


def needed_by(
    ranks: Ranks, plan: NDArray[np.int64], images: Sequence[DatasetImage], config: TrainingConfig, first_step: int
) -> list[DatasetImage]:
    """Return the images that a rank reads in the rest of an epoch, in order, then its part of its machine's share."""
    steps = shares(plan, config, 0, ranks.rank, ranks.world, first_step)
    now = [index for step in steps for share in step for index in share.images.tolist()]
    here = ranks.machines[ranks.rank]
    later = np.flatnonzero(homes(images, ranks.machines) == here).tolist()
    neighbours = [rank for rank, machine in enumerate(ranks.machines) if machine == here]
    mine = later[neighbours.index(ranks.rank) :: len(neighbours)]
    return [images[index] for index in dict.fromkeys(now + mine)]


def repeat_factors(images: Sequence[DatasetImage], threshold: float) -> NDArray[np.float64]:
    """Return each image's frequency in an epoch, at least 1, float64 [n] (LVIS, arXiv:1908.03195, section 3.2)."""
    present = [set(image.category_ids.tolist()) for image in images]
    counts = Counter(category_id for classes in present for category_id in classes)
    factor = {id_: max(1.0, (threshold * len(images) / count) ** 0.5) for id_, count in counts.items()}
    return np.array([max((factor[id_] for id_ in classes), default=1.0) for classes in present])


def steps_of(images: int, config: TrainingConfig, world: int) -> int:
    """Return the number of optimizer steps in an epoch of `images`; the last step can be smaller."""
    return -(-images // (config.batch_size * config.accumulate * world))


def resumed_step(step: int, together: int, now_together: int) -> int:
    """Return the step from which an epoch continues when each step takes another number of images, over all ranks.

    It is the step that starts where the old one did, or the last one before: no image is left out.
    """
    return step * together // now_together


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
        yield [_share(plan, config, epoch, rank, world, begin) for begin in passes if begin < len(plan)]


def _share(plan: NDArray[np.int64], config: TrainingConfig, epoch: int, rank: int, world: int, begin: int) -> Share:
    end = min(begin + config.batch_size * world, len(plan))
    start = min(begin + config.batch_size * rank, end)
    places = range(start, min(start + config.batch_size, end))
    weight = world * len(places) / (end - begin)
    return Share(plan[places.start : places.stop], [(config.seed, epoch, place) for place in places], weight)
