"""Scores of readers against each other, on a table small enough to count by hand; and on the real one."""

from typing import Any

import pytest

from tests.requirements import SHARED_DATA
from trainer.datasets.annotations import Annotations
from trainer.datasets.human import score_readers
from trainer.datasets.vinbigdata import read_table

HERE, THERE = "0,0,10,10", "50,50,60,60"
NONE = ",,,"
#: Image a: R1 and R2 draw the nodule, R3 nothing. Image b: nobody finds anything.
NODULE = [
    *(("a", "Nodule/Mass", reader, HERE) for reader in ("R1", "R2")),
    ("a", "No finding", "R3", NONE),
    *(("b", "No finding", reader, NONE) for reader in ("R1", "R2", "R3")),
]
#: All readers draw the second box, R2 also the first one.
RANKED = [("c", "Cardiomegaly", "R2", HERE), *(("c", "Cardiomegaly", reader, THERE) for reader in ("R1", "R2", "R3"))]


def table(*rows: tuple[str, str, str, str]) -> Annotations:
    lines = [",".join(row) for row in rows]
    return read_table("\n".join(["image_id,class_name,rad_id,x_min,y_min,x_max,y_max", *lines]).encode())


def scores_of(annotations: Annotations) -> dict[str, Any]:
    scored: dict[str, Any] = score_readers(annotations, ["val"] * len(annotations.images), 0.5)["val"]
    return scored


def test_each_reader_is_held_out_once() -> None:
    """Against R3, who saw nothing, the class has no true box; R3 misses the nodule, and ranks b as normal as a."""
    scores = scores_of(table(*NODULE))
    assert scores == {
        "images": 2,
        "one_reader": {"8": pytest.approx((1 + 1 + 0) / 3)},
        "no_finding": pytest.approx((1 + 1 + 1 / 2) / 3),
        "others": {"8": 1},
    }


def test_the_consensus_is_ranked_by_agreement() -> None:
    """Without R1 or R3 the box that both others drew comes first, and is the only true one; R2 has drawn two."""
    scores = scores_of(table(*RANKED))
    assert scores["others"] == {"3": pytest.approx((1 + 1 / 2 + 1) / 3)}
    assert scores["one_reader"] == {"3": pytest.approx((1 / 2 + 1 / 2 + 1 / 2) / 3)}
    assert scores["no_finding"] is None, "no image is normal"


def test_another_reader_is_held_out_of_the_next_image() -> None:
    """Only R1 of either image saw something: in two of three rounds one of the images has a finding to be found."""
    rows = [(name, "Nodule/Mass", "R1", HERE) for name in "ab"]
    rows += [(name, "No finding", reader, NONE) for name in "ab" for reader in ("R2", "R3")]
    scores = scores_of(table(*rows))
    # a without R1 and b without R2: b's nodule is missed, and R1's on a is wrong. Then neither is found by R2 or R3.
    # Last, a without R3 and b without R1, as in the first round. If R1 were held out of both images at once, no round
    # would have normal and abnormal images.
    assert scores["one_reader"] == {"8": 0}
    assert scores["no_finding"] == pytest.approx((1 / 2 + 1 / 2) / 2)


def test_splits_are_scored_apart_and_images_of_one_reader_do_not_count() -> None:
    annotations = table(*NODULE, *RANKED, ("d", "Cardiomegaly", "R1", HERE))
    assert [image.file_name for image in annotations.images] == ["a", "b", "c", "d"]
    scores = score_readers(annotations, ["train", "train", "test", "test"], 0.5)
    assert {split: scored["images"] for split, scored in scores.items()} == {"train": 2, "test": 1}
    assert scores["test"]["others"] == {"3": pytest.approx(5 / 6), "8": None}


def test_there_is_no_reference_without_boxes_of_single_readers() -> None:
    alone = table(("a", "Nodule/Mass", "R1", HERE), ("b", "No finding", "R2", NONE))
    assert score_readers(alone, ["val", "val"], 0.5) == {}
    anonymous = read_table(b"image_id,class_name,x_min,y_min,x_max,y_max\na,Nodule/Mass,0,0,9,9\n")
    assert score_readers(anonymous, ["val"], 0.5) == {}


@pytest.mark.needs("shared/data")
def test_the_readers_of_vinbigdata() -> None:
    """Independent measurements gave 0.225, 0.276 with a perfect "No finding", and 0.319."""
    scores = scores_of(read_table((SHARED_DATA / "vinbigdata/train.csv.gz").read_bytes()))
    one, others = (list(scores[key].values()) for key in ("one_reader", "others"))
    assert len(one) == 14
    assert scores["no_finding"] == 1, "either all readers of an image found something or none"
    assert sum(one) / 14 == pytest.approx(0.225, abs=0.003)
    assert (sum(one) + 1) / 15 == pytest.approx(0.276, abs=0.003)
    assert sum(others) / 14 == pytest.approx(0.319, abs=0.003)
