"""Several readers' boxes made one, by hand and against the library."""

import random

import numpy as np
import pytest
from ensemble_boxes import weighted_boxes_fusion

from shared.detector.boxes import iou
from shared.detector.card import Category
from shared.training.dataset_source import Consensus
from trainer.datasets.annotations import AnnotatedImage, Annotations, Box, MalformedAnnotations, Xyxy
from trainer.datasets.consensus import TOO_FEW_READERS, UNREAD, agree, listen


def drawn(reader: str, xyxy_px: Xyxy, category_id: int = 1) -> Box:
    return Box(category_id, xyxy_px, (reader,))


def annotated(*boxes: Box, readers: tuple[str, ...] = ("R1", "R2", "R3")) -> Annotations:
    categories = (Category(id=1, name="Nodule"), Category(id=2, name="Mass"))
    return Annotations(categories, (AnnotatedImage("image", boxes, readers),), {})


def boxes_of(annotations: Annotations) -> list[tuple[Xyxy, tuple[str, ...]]]:
    return [(box.xyxy_px, box.readers) for image in annotations.images for box in image.boxes]


#: The first two overlap by 90 of 110 pixels, the third is elsewhere.
PAIR_AND_ONE = (drawn("R1", (0, 0, 10, 10)), drawn("R2", (1, 0, 11, 10)), drawn("R3", (50, 50, 60, 60)))


def test_boxes_that_overlap_are_averaged_and_keep_who_drew_them() -> None:
    fused = agree(annotated(*PAIR_AND_ONE), Consensus())
    assert boxes_of(fused) == [((0.5, 0, 10.5, 10), ("R1", "R2")), ((50, 50, 60, 60), ("R3",))]


def test_a_threshold_above_the_overlap_keeps_them_apart() -> None:
    assert len(boxes_of(agree(annotated(*PAIR_AND_ONE), Consensus(iou=0.81)))) == 2
    assert len(boxes_of(agree(annotated(*PAIR_AND_ONE), Consensus(iou=0.82)))) == 3, "90 / 110 = 0.818"


def test_classes_are_not_mixed() -> None:
    same_place = annotated(drawn("R1", (0, 0, 10, 10), 1), drawn("R2", (0, 0, 10, 10), 2))
    for method in ("wbf", "nms"):
        assert len(boxes_of(agree(same_place, Consensus(method=method)))) == 2


def test_findings_of_too_few_readers_are_left_out_and_counted() -> None:
    fused = agree(annotated(*PAIR_AND_ONE), Consensus(min_readers=2))
    assert boxes_of(fused) == [((0.5, 0, 10.5, 10), ("R1", "R2"))]
    assert fused.noted == {TOO_FEW_READERS: 1}
    twice_by_one = annotated(drawn("R1", (0, 0, 10, 10)), drawn("R1", (1, 0, 11, 10)))
    assert boxes_of(agree(twice_by_one, Consensus(min_readers=2))) == [], "one reader is one, however often they draw"


def test_suppression_keeps_the_box_that_the_others_agree_with() -> None:
    middle = drawn("R2", (1, 0, 11, 10))
    kept = agree(annotated(drawn("R1", (0, 0, 10, 10)), middle, drawn("R3", (2, 0, 12, 10))), Consensus(method="nms"))
    assert boxes_of(kept) == [(middle.xyxy_px, ("R1", "R2", "R3"))]


def test_without_a_consensus_every_box_stays() -> None:
    kept = agree(annotated(*PAIR_AND_ONE), Consensus(method="none"))
    assert sorted(boxes_of(kept)) == sorted((box.xyxy_px, box.readers) for box in PAIR_AND_ONE)


def random_boxes(rng: random.Random, count: int) -> list[Box]:
    """Boxes around a few places, so that many overlap."""
    boxes = []
    for _ in range(count):
        x, y = rng.choice([(100, 100), (140, 110), (400, 300)])
        left, top = x + rng.uniform(-30, 30), y + rng.uniform(-30, 30)
        corners = (left, top, left + rng.uniform(60, 120), top + rng.uniform(60, 120))
        boxes.append(drawn(rng.choice(["R1", "R2", "R3"]), corners, rng.choice([1, 2])))
    return boxes


@pytest.mark.parametrize("seed", range(20))
def test_fusion_is_that_of_the_library(seed: int) -> None:
    """And each box's members are those whose mean it is."""
    rng = random.Random(seed)
    boxes = random_boxes(rng, 14)
    threshold = rng.uniform(0.3, 0.7)
    fused = agree(annotated(*boxes), Consensus(iou=threshold)).images[0].boxes
    for category_id in (1, 2):
        ours = sorted(box.xyxy_px for box in fused if box.category_id == category_id)
        # The library takes boxes of one score from the last to the first.
        of_class = sorted((box.xyxy_px for box in boxes if box.category_id == category_id), reverse=True)
        theirs, _, _ = weighted_boxes_fusion(
            [(np.array(of_class) / 1000).tolist()], [[1.0] * len(of_class)], [[1] * len(of_class)], iou_thr=threshold
        )
        np.testing.assert_allclose(ours, sorted((theirs * 1000).tolist()), atol=1e-2)


@pytest.mark.parametrize("method", ["wbf", "nms", "none"])
@pytest.mark.parametrize("seed", range(5))
def test_every_reader_of_every_box_is_kept_whatever_the_order(method: str, seed: int) -> None:
    rng = random.Random(seed)
    boxes = random_boxes(rng, 12)
    consensus = Consensus.model_validate({"method": method})
    found = agree(annotated(*boxes), consensus).images[0].boxes
    for box in boxes:
        # Whoever drew something is among the readers of a finding that overlaps it.
        overlapping = [
            other
            for other in found
            if other.category_id == box.category_id
            and iou(np.array([other.xyxy_px], np.float32), np.array([box.xyxy_px], np.float32)) > 0.3
        ]
        assert any(box.readers[0] in other.readers for other in overlapping)
    rng.shuffle(boxes)
    assert agree(annotated(*boxes), consensus).images[0].boxes == found


def test_only_the_chosen_readers_are_heard() -> None:
    unread = AnnotatedImage("other image", (drawn("R3", (0, 0, 5, 5)),), ("R3",))
    normal = AnnotatedImage("normal image", (), ("R2", "R3"))
    annotations = annotated(*PAIR_AND_ONE)
    annotations = Annotations(annotations.categories, (*annotations.images, unread, normal), {"before": 1})
    heard = listen(annotations, Consensus(readers=("R2",)))
    assert [(image.file_name, image.readers, len(image.boxes)) for image in heard.images] == [
        ("image", ("R2",), 1),
        ("normal image", ("R2",), 0),
    ]
    assert heard.noted == {"before": 1, UNREAD: 1}


def test_readers_who_are_not_known_are_refused() -> None:
    with pytest.raises(MalformedAnnotations, match="no reader R9"):
        listen(annotated(*PAIR_AND_ONE), Consensus(readers=("R1", "R9")))
    anonymous = annotated(Box(1, (0, 0, 5, 5), ()))
    with pytest.raises(MalformedAnnotations, match="who drew each box"):
        listen(anonymous, Consensus())
    assert listen(anonymous, Consensus(method="none")) == anonymous
