"""Assigns patients to splits so that all splits have similar shares of each class.

Iterative stratification (Sechidis, Tsoumakas and Vlahavas 2011, doi:10.1007/978-3-642-23808-6_10) of groups instead of
examples: a group, which is a patient or an image without a known patient, is never divided.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from shared.errors import PermanentError
from shared.training.config import Split
from shared.training.dataset_source import SplitPlan

SPLITS: tuple[Split, ...] = get_args(Split)
#: Splits by the names in annotations, in lower case.
SPLIT_OF: dict[str, Split] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
#: A PatientID with more than this share of the images is not a patient, but a default value written by a tool.
MAX_GROUP_SHARE = 0.5
_COUNTED_FROM_IMAGES = 20
_NORMAL = "normal"


class SplitImpossible(PermanentError):
    """The images cannot be split as requested."""

    code = "split_impossible"


@dataclass(frozen=True)
class Member:
    """An image to be assigned to a split."""

    group: str
    category_ids: frozenset[int]


def stratify(members: Sequence[Member], plan: SplitPlan) -> list[Split]:
    """Return the split of each image, independent of the order of the images. Raises `SplitImpossible`."""
    counts: defaultdict[str, Counter[Hashable]] = defaultdict(Counter)
    for member in members:
        counts[member.group].update(member.category_ids or {_NORMAL})
    sizes = Counter(member.group for member in members)
    wanted = [split for split in SPLITS if getattr(plan, split) > 0]
    _check(sizes, wanted)
    shares = np.array([getattr(plan, split) for split in wanted])
    dealt = _deal(counts, sizes, shares / shares.sum(), plan.seed)
    return [wanted[dealt[member.group]] for member in members]


def check_kept(members: Sequence[Member], splits: Iterable[Split | None]) -> list[Split]:
    """Return the annotated splits. Raises `SplitImpossible` if one is missing or a patient is in several."""
    kept: list[Split] = []
    first: dict[str, Split] = {}
    parted = set()
    for member, split in zip(members, splits, strict=True):
        if split is None:
            raise SplitImpossible("The splits of the annotations cannot be kept, because some images have none.")
        if first.setdefault(member.group, split) != split:
            parted.add(member.group)
        kept.append(split)
    if parted:
        raise SplitImpossible(f"{len(parted)} patients have images in more than one split.")
    return kept


def _check(sizes: Mapping[str, int], wanted: Sequence[Split]) -> None:
    images = sum(sizes.values())
    if len(sizes) < len(wanted):
        raise SplitImpossible(f"{len(sizes)} patients or images cannot be dealt out to {len(wanted)} splits.")
    largest = max(sizes.values(), default=0)
    if len(wanted) > 1 and images >= _COUNTED_FROM_IMAGES and largest > MAX_GROUP_SHARE * images:
        raise SplitImpossible(
            f"One patient has {largest} of {images} images. Where this is the PatientID that a tool gave to everybody, "
            "import without patients from DICOM."
        )


def _deal(
    counts: Mapping[str, Mapping[Hashable, int]], sizes: Mapping[str, int], shares: NDArray[np.float64], seed: int
) -> dict[str, int]:
    """Assign each group to one of the shares [s], whose sum is 1; `counts` are the images of each group by class."""
    shuffled = sorted(counts, key=lambda group: hashlib.sha256(f"{seed}:{group}".encode()).digest())
    # What each share still needs: images, and images of each class.
    wants_images = shares * sum(sizes.values())
    totals: Counter[Hashable] = sum((Counter(count) for count in counts.values()), Counter())
    wants = {label: shares * total for label, total in totals.items()}
    holders: dict[Hashable, list[str]] = {label: [] for label in totals}
    for group in shuffled:
        for label in counts[group]:
            holders[label].append(group)
    dealt: dict[str, int] = {}
    left = dict(totals)
    while left:
        # The rarest class first, because few groups may be left to balance it later.
        label = min(left, key=lambda label: (left[label], str(label)))
        # Large groups first, while the shares can still take them.
        for group in sorted(holders[label], key=lambda group: -counts[group][label]):
            if group in dealt:
                continue
            share = _most_wanting(wants[label], wants_images, shares)
            dealt[group] = share
            wants_images[share] -= sizes[group]
            for other, count in counts[group].items():
                wants[other][share] -= count
                if other in left:
                    left[other] -= count
        del left[label]
    return dealt


def _most_wanting(wants: NDArray[np.float64], wants_images: NDArray[np.float64], shares: NDArray[np.float64]) -> int:
    """Return the share that needs the class most; if equal, images most; if equal, the largest."""
    order = np.lexsort((-shares, -wants_images.round(9), -wants.round(9)))
    return int(order[0])
