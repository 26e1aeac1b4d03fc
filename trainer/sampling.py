"""Which film comes when: a function of config and epoch alone, so that a resumed run goes on as it would have."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shared.training.config import TrainingConfig
from trainer.datasets.dataset import Film


@dataclass(frozen=True)
class Share:
    """What one rank takes of one forward pass."""

    #: Indices into the training films, and what each draws its random numbers from. Both may be empty.
    films: NDArray[np.int64]  # [b]
    seeds: list[tuple[int, int, int]]  # (seed, epoch, place in the epoch)


def plan_epoch(films: Sequence[Film], config: TrainingConfig, epoch: int) -> NDArray[np.int64]:
    """Return the indices of one epoch's films in order, int64 [config.images_per_epoch or about the films' number].

    Films without a finding enter at `normal_rate`; films of rare classes come more often (`repeat_factors`).
    """
    factors = repeat_factors(films, config.repeat_threshold)
    normal = np.array([not len(film.category_ids) for film in films])
    factors[normal] *= config.normal_rate
    most = config.images_per_epoch
    rounds: list[NDArray[np.int64]] = []
    while not rounds or (most is not None and sum(map(len, rounds)) < most):
        rng = np.random.default_rng((config.seed, epoch, len(rounds)))
        # Stochastic rounding, so that over the epochs each film comes as often as its factor says.
        times = np.floor(factors + rng.random(len(films))).astype(np.int64)
        rounds.append(rng.permutation(np.repeat(np.arange(len(films)), times)))
    return np.concatenate(rounds)[:most]


def repeat_factors(films: Sequence[Film], threshold: float) -> NDArray[np.float64]:
    """Return how often each film is to come in an epoch, from 1, float64 [n] (LVIS, arXiv:1908.03195, section 3.2)."""
    present = [set(film.category_ids.tolist()) for film in films]
    images = Counter(category_id for classes in present for category_id in classes)
    factor = {id_: max(1.0, (threshold * len(films) / count) ** 0.5) for id_, count in images.items()}
    return np.array([max((factor[id_] for id_ in classes), default=1.0) for classes in present])


def steps_of(images: int, config: TrainingConfig, world: int) -> int:
    """Return the optimizer's steps in an epoch of `images`; the last one may be smaller."""
    return -(-images // (config.batch_size * config.accumulate * world))


def shares(
    plan: NDArray[np.int64], config: TrainingConfig, epoch: int, rank: int, world: int, first_step: int = 0
) -> Iterator[list[Share]]:
    """Yield for each step from `first_step` on what this rank takes in each of its forward passes.

    Ranks take neighbouring parts, so that two of batch b see what one of batch 2b does. A pass that no rank has images
    for is left out.
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
