"""Splits: nobody on both sides, every class in each, the same whatever order the images come in."""

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.training.dataset_source import SplitPlan
from trainer.datasets.splits import Member, SplitImpossible, check_kept, stratify

member = st.builds(Member, st.sampled_from("abcdefghij"), st.frozensets(st.integers(0, 4), max_size=3))
plans = st.sampled_from(
    [SplitPlan(), SplitPlan(train=0.5, val=0.5, test=0), SplitPlan(train=0.2, val=0.3, test=0.5, seed=9)]
)


@settings(max_examples=200)
@given(st.lists(member, min_size=3), plans, st.randoms())
def test_no_group_is_on_both_sides_whatever_the_order(
    members: list[Member], plan: SplitPlan, rng: random.Random
) -> None:
    try:
        splits = stratify(members, plan)
    except SplitImpossible:
        groups = Counter(each.group for each in members)
        wanted = sum(share > 0 for share in (plan.train, plan.val, plan.test))
        assert len(groups) < wanted or max(groups.values()) > len(members) / 2
        return
    of_group: dict[str, str] = {}
    for each, split in zip(members, splits, strict=True):
        assert of_group.setdefault(each.group, split) == split
        assert getattr(plan, split) > 0
    order = list(range(len(members)))
    rng.shuffle(order)
    assert stratify([members[index] for index in order], plan) == [splits[index] for index in order]


def many(seed: int = 0) -> list[Member]:
    """2,000 images of 700 patients, with classes from common to very rare; half are normal."""
    rng = random.Random(seed)
    shares = (0.3, 0.1, 0.03, 0.01)
    found = lambda: frozenset(label for label, share in enumerate(shares) if rng.random() < share)  # noqa: E731
    return [Member(f"p{rng.randrange(700)}", found()) for _ in range(2000)]


def test_every_class_comes_in_its_share() -> None:
    members = many()
    splits = stratify(members, SplitPlan())
    for share, split in ((0.8, "train"), (0.1, "val"), (0.1, "test")):
        assert splits.count(split) == pytest.approx(share * len(members), abs=0.01 * len(members))
        for label in range(4):
            total = sum(label in each.category_ids for each in members)
            here = sum(label in each.category_ids and of == split for each, of in zip(members, splits, strict=True))
            assert here == pytest.approx(share * total, abs=2 + 0.02 * total), (split, label)


def test_another_seed_is_another_split() -> None:
    members = many()
    assert stratify(members, SplitPlan(seed=1)) != stratify(members, SplitPlan(seed=2))


def test_too_few_patients_are_refused() -> None:
    members = [Member("a", frozenset()), Member("a", frozenset({1})), Member("b", frozenset())]
    with pytest.raises(SplitImpossible, match="2 patients"):
        stratify(members, SplitPlan())
    assert set(stratify(members, SplitPlan(train=0.5, val=0.5, test=0))) == {"train", "val"}


def test_a_patient_id_that_everybody_has_is_noticed() -> None:
    members = [Member("anonymous" if number < 30 else f"p{number}", frozenset()) for number in range(50)]
    with pytest.raises(SplitImpossible, match="One patient has 30 of 50 images"):
        stratify(members, SplitPlan())


def test_splits_that_came_along_are_kept_if_they_part_nobody() -> None:
    members = [Member("a", frozenset()), Member("a", frozenset()), Member("b", frozenset())]
    assert check_kept(members, ["val", "val", "train"]) == ["val", "val", "train"]
    with pytest.raises(SplitImpossible, match="1 patients have images in more than one split"):
        check_kept(members, ["val", "train", "train"])
    with pytest.raises(SplitImpossible, match="because some images have none"):
        check_kept(members, ["val", "val", None])
