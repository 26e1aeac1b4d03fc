"""Every image comes as often as the config says, in an order that is a function of seed and epoch alone."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from tests.tiny_images import tiny_config, tiny_dataset
from trainer.ranks import Ranks
from trainer.sampling import homes, needed_by, plan_epoch, repeat_factors, resumed_step, shares, steps_of

IMAGES = tiny_dataset(16).images  # every fourth one is normal


def test_by_default_an_epoch_has_each_image_once_in_another_order_each_time() -> None:
    first, second = (plan_epoch(IMAGES, tiny_config(), epoch) for epoch in (0, 1))
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(16))
    assert first.tolist() != second.tolist()
    assert first.tolist() == plan_epoch(IMAGES, tiny_config(), 0).tolist()


def test_normal_images_enter_at_their_rate() -> None:
    config = tiny_config(normal_rate=0.25)
    counts = Counter(index for epoch in range(200) for index in plan_epoch(IMAGES, config, epoch).tolist())
    assert all(counts[index] == 200 for index in range(16) if index % 4 != 3)
    assert sum(counts[index] for index in (3, 7, 11, 15)) == pytest.approx(200, abs=45)
    assert not set(plan_epoch(IMAGES, tiny_config(normal_rate=0), 0).tolist()) & {3, 7, 11, 15}


def test_rare_classes_are_repeated_by_the_root_of_their_rarity() -> None:
    images = [image for image in IMAGES if 7 in image.category_ids] + [f for f in IMAGES if set(f.category_ids) == {3}][
        :1
    ]
    share = sum(3 in image.category_ids for image in images) / len(images)
    factors = repeat_factors(images, 1.0)
    only_squares = next(i for i, image in enumerate(images) if set(image.category_ids) == {7})
    assert factors[-1] == pytest.approx(max(1, (1 / share) ** 0.5))
    assert factors[only_squares] < factors[-1]
    assert np.all(repeat_factors(images, 0) == 1)


@given(
    images=st.integers(1, 40),
    batch_size=st.integers(1, 5),
    accumulate=st.integers(1, 3),
    world=st.integers(1, 4),
    first=st.integers(0, 5),
)
def test_the_ranks_together_take_every_place_of_the_plan_once(
    images: int, batch_size: int, accumulate: int, world: int, first: int
) -> None:
    config = tiny_config(batch_size=batch_size, accumulate=accumulate)
    plan = np.arange(images) + 100
    of_ranks = [list(shares(plan, config, 0, rank, world)) for rank in range(world)]
    assert {len(steps) for steps in of_ranks} == {steps_of(images, config, world)}
    taken = []
    for step in zip(*of_ranks, strict=True):
        assert len({len(passes) for passes in step}) == 1, "every rank enters the same collectives"
        for share in (share for passes in zip(*step, strict=True) for share in passes):
            assert len(share.images) == len(share.seeds) <= batch_size
            taken += share.images.tolist()
    assert taken == plan.tolist()
    resumed = list(shares(plan, config, 0, 0, world, first))
    assert [[s.images.tolist() for s in step] for step in resumed] == [
        [s.images.tolist() for s in step] for step in of_ranks[0][first:]
    ]


@given(
    images=st.integers(1, 80),
    groups=st.lists(st.tuples(st.integers(1, 5), st.integers(1, 4)), min_size=2, max_size=5),
    batch_size=st.integers(1, 4),
    accumulate=st.integers(1, 3),
)
@example(images=40, groups=[(2, 3), (1, 1)], batch_size=2, accumulate=1)
def test_a_group_that_loses_or_gains_ranks_leaves_no_image_of_the_epoch_out(
    images: int, groups: list[tuple[int, int]], batch_size: int, accumulate: int
) -> None:
    """Groups of so many ranks do so many steps each, up to a checkpoint, and the last one does the rest."""
    config = tiny_config(batch_size=batch_size, accumulate=accumulate)
    plan = np.arange(images)
    used: Counter[int] = Counter()
    step, done, together, again = 0, 0, 1, 0
    for number, (world, steps) in enumerate(groups, start=1):
        now_together = batch_size * accumulate * world
        step, together = resumed_step(step, together, now_together), now_together
        repeated = done - step * together
        assert 0 <= repeated < together, "less than a step is done again"
        assert repeated == 0 or done % together, "nothing is done again where a step begins there"
        again += repeated
        todo = None if number == len(groups) else steps
        of_ranks = [list(shares(plan, config, 0, rank, world, step))[:todo] for rank in range(world)]
        used += Counter(i for rank in of_ranks for passes in rank for share in passes for i in share.images.tolist())
        step += len(of_ranks[0])
        done = min(step * together, images)
        if done == images:
            break
    assert set(used) == set(range(images))
    assert used.total() == images + again
    if all(before % after == 0 for (before, _), (after, _) in pairwise(groups)):
        assert set(used.values()) == {1}, "2 ranks that go on as 1 use each image exactly once"


def test_the_weights_of_the_ranks_make_each_image_count_the_same() -> None:
    config = tiny_config(batch_size=4)
    (first,), (second,) = (next(iter(shares(np.arange(5), config, 0, rank, 2))) for rank in (0, 1))
    assert (len(first.images), len(second.images)) == (4, 1)
    assert first.weight / 2 / 4 == pytest.approx(second.weight / 2 / 1) == pytest.approx(1 / 5)


@pytest.mark.parametrize("machines", [(0, 1), (0, 0, 1, 1), (0, 0, 0, 1), (0, 1, 2), (5, 5, 7)])
@pytest.mark.parametrize("changes", [{}, {"normal_rate": 0.5}, {"repeat_threshold": 0.9}, {"accumulate": 3}])
def test_a_machine_reads_its_share_in_each_epoch(machines: tuple[int, ...], changes: dict[str, float]) -> None:
    images, config = tiny_dataset(240).images, tiny_config(**changes)
    world = len(machines)
    home = homes(images, machines)
    outside = read = 0
    for epoch in range(4):
        plan = plan_epoch(images, config, epoch, machines)
        assert sorted(plan.tolist()) == sorted(plan_epoch(images, config, epoch).tolist()), "the same images"
        for rank in range(world):
            own = [
                i for step in shares(plan, config, epoch, rank, world) for share in step for i in share.images.tolist()
            ]
            outside += sum(home[index] != machines[rank] for index in own)
            read += len(own)
    assert outside <= 0.05 * read


def test_a_rank_first_caches_what_it_reads_next_and_the_ranks_of_a_machine_cache_its_share() -> None:
    images, config, machines = tiny_dataset(60).images, tiny_config(normal_rate=0), (0, 0, 1)
    plan = plan_epoch(images, config, 0, machines)
    cached: dict[int, set[int]] = {0: set(), 1: set()}
    for rank, machine in enumerate(machines):
        needed = needed_by(Ranks(rank, 3, torch.device("cpu"), machines), plan, images, config, 2)
        steps = shares(plan, config, 0, rank, 3, 2)
        own = [index for step in steps for share in step for index in share.images.tolist()]
        assert [image.image_id for image in needed[: len(own)]] == own
        assert len({image.image_id for image in needed}) == len(needed)
        cached[machine] |= {image.image_id for image in needed}
    for machine, found in cached.items():
        assert found >= set(np.flatnonzero(homes(images, machines) == machine).tolist())
