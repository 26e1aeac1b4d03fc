"""Boxes in other units than pixels of their images: scaled, refused or noted, and never taken as they are."""

from dataclasses import replace

import numpy as np
import pytest

from shared.detector.card import Category
from shared.training.dataset_source import Consensus, VinBigDataSource
from tests.vinbigdata import picture_of
from trainer.datasets.annotations import AnnotatedImage, Annotations, Box, ImplausibleBoxes, MalformedAnnotations, Xyxy
from trainer.datasets.document import CUT, OUTSIDE, SCALED, SIZE_MISMATCH, match
from trainer.datasets.making import without_readers
from trainer.datasets.plausible import check_fit, check_units, drop_vanishing
from trainer.datasets.renditions import Picture

NORMAL = AnnotatedImage("normal", ())


def drawn(*boxes: Xyxy) -> Annotations:
    """One image for each box, and a normal one."""
    images = tuple(
        AnnotatedImage(f"image{number}", (Box(0, box, (), f"line {number + 2}"),), origin=f"line {number + 2}")
        for number, box in enumerate(boxes)
    )
    return Annotations((Category(id=0, name="Cardiomegaly"),), (*images, NORMAL), {})


def pictures(annotations: Annotations, width_px: int = 500, height_px: int = 400) -> dict[str, Picture]:
    return {
        image.file_name: replace(picture_of(image.file_name), width_px=width_px, height_px=height_px)
        for image in annotations.images
    }


GOOD: Xyxy = (100.0, 100.0, 300.0, 300.0)


@pytest.mark.parametrize("boxes", [[(0.1, 0.2, 0.5, 1.0)], 3 * [(0.0, 0.0, 1.0, 1.0)]])
def test_shares_of_the_size_are_refused(boxes: list[Xyxy]) -> None:
    with pytest.raises(ImplausibleBoxes, match=r"between 0 and 1.*Multiply") as refused:
        check_units(drawn(*boxes))
    assert refused.value.code == "implausible_boxes"


def test_boxes_that_are_thinner_than_a_pixel_are_refused_where_they_are_the_most() -> None:
    thin = (10.0, 10.0, 10.5, 50.0)
    check_units(drawn(GOOD, thin))
    with pytest.raises(ImplausibleBoxes, match=r"2 of 3 boxes are thinner than a pixel \(line 3, line 4"):
        check_units(drawn(GOOD, thin, thin))


def test_boxes_outside_their_images_are_refused_where_they_are_the_most() -> None:
    outside = (1000.0, 1000.0, 1200.0, 1300.0)
    some, most = drawn(GOOD, outside), drawn(GOOD, outside, outside)
    check_fit(some, pictures(some))
    with pytest.raises(ImplausibleBoxes, match=r"2 of 3 boxes lie outside .*width and height"):
        check_fit(most, pictures(most))


def test_boxes_that_all_reach_past_the_edge_are_refused() -> None:
    past = [(300.0, 100.0, 515.0, 300.0)] * 4
    few, many = drawn(*past[:3]), drawn(*past)
    check_fit(few, pictures(few))
    with pytest.raises(ImplausibleBoxes, match="4 of 4 boxes reach past the edge"):
        check_fit(many, pictures(many))


def test_boxes_that_all_are_in_one_corner_are_noted() -> None:
    corner = drawn(*[(10.0, 10.0, 90.0, 90.0)] * 20)
    assert check_fit(corner, pictures(corner)).noted["boxes_in_one_corner"] == 20
    spread = drawn(*[(10.0, 10.0, 90.0, 90.0)] * 20, GOOD)
    assert "boxes_in_one_corner" not in check_fit(spread, pictures(spread)).noted


def test_an_image_without_a_size_is_noted_as_its_units_cannot_be_checked() -> None:
    unsized = drawn(GOOD)
    checked = check_fit(unsized, pictures(unsized))
    assert (checked.noted, checked.culprits) == ({"size_unknown": 1}, {"size_unknown": ("line 2",)})
    sized = replace(unsized, images=tuple(replace(image, width_px=500, height_px=400) for image in unsized.images))
    assert check_fit(sized, pictures(sized)).noted == {}


def test_one_box_past_the_edge_costs_itself_and_not_its_image() -> None:
    boxes = (Box(0, GOOD, (), "line 2"), Box(0, (450.0, 350.0, 640.0, 420.0), (), "line 3"))
    gone = (Box(0, GOOD, ()), Box(0, (900.0, 350.0, 990.0, 420.0), (), "line 9"))
    annotations = replace(drawn(), images=(AnnotatedImage("a", boxes), AnnotatedImage("b", gone)))
    content, failures = match(annotations, pictures(annotations))
    assert not failures
    first, second = content.annotations.images
    assert [box.xyxy_px for box in first.boxes] == [GOOD, (450, 350, 500, 400)]
    assert len(second.boxes) == 1
    assert content.annotations.noted == {CUT: 1, OUTSIDE: 1}
    assert content.annotations.culprits == {CUT: ("line 3",), OUTSIDE: ("line 9",)}


def test_boxes_are_scaled_from_the_annotated_size_to_the_files() -> None:
    image = AnnotatedImage("a", (Box(0, GOOD, ()),), width_px=1000, height_px=2000, scales=True, origin="line 2")
    annotations = replace(drawn(), images=(image,))
    content, failures = match(annotations, pictures(annotations))
    assert not failures
    assert content.annotations.images[0].boxes[0].xyxy_px == (50, 20, 150, 60)
    assert content.annotations.culprits == {SCALED: ("line 2",)}


def test_a_size_that_is_turned_is_no_scale() -> None:
    image = AnnotatedImage("a", (Box(0, GOOD, ()),), width_px=400, height_px=500, scales=True)
    _, (failure,) = match(replace(drawn(), images=(image,)), pictures(replace(drawn(), images=(image,))))
    assert failure.code == SIZE_MISMATCH
    assert "500×400 pixels; the annotations are of 400×500" in failure.reason


def test_boxes_that_vanish_in_float32_are_left_out_and_noted() -> None:
    # In float32 its corners differ, until the box is scaled.
    vanishing = (208.80717549940147, 100.0, 208.80717549940147 + 1.48e-5, 160.0)
    annotations = drawn(GOOD, vanishing)
    content, _ = match(annotations, pictures(annotations))
    dropped = drop_vanishing(content).annotations
    assert [len(image.boxes) for image in dropped.images] == [1, 0, 0]
    assert dropped.culprits == {"box_without_area": ("line 3",)}
    assert np.float32(vanishing[0]) < np.float32(vanishing[2])


def test_a_table_without_readers_is_taken_without_a_consensus() -> None:
    source = VinBigDataSource(annotations="", images="")
    annotations, settled = without_readers(drawn(GOOD), source)
    assert isinstance(settled, VinBigDataSource)
    assert settled.consensus == Consensus(method="none")
    assert annotations.noted == {"readers_unknown": 1}
    for consensus in (Consensus(min_readers=2), Consensus(readers=("R1",))):
        with pytest.raises(MalformedAnnotations, match="has no rad_id"):
            without_readers(drawn(GOOD), source.model_copy(update={"consensus": consensus}))
