"""Findings drawn for a reader."""

from io import BytesIO

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageColor

from shared.imaging.overlay import PALETTE, OverlayBox, assign_colours, draw_overlay

GREY = np.full((512, 400), 100, np.uint8)


def pixels_of(boxes: list[OverlayBox], rendition: NDArray[np.uint8] = GREY, note: str = "") -> NDArray[np.uint8]:
    """The overlay, uint8 [H + footer, W, 3]."""
    return np.asarray(Image.open(BytesIO(draw_overlay(rendition, boxes, note))))


def plates(pixels: NDArray[np.uint8], label: str, box: OverlayBox) -> int:
    """How many pixels have the label's colour, outside the frame of its box."""
    coloured = (pixels == ImageColor.getrgb(assign_colours([label])[label])).all(axis=2)
    left, top, right, bottom = map(int, box.box_xyxy_px)
    coloured[top:bottom, left:right] = False
    return int(coloured.sum())


def test_the_picture_stays_in_place_and_a_note_stands_below_it() -> None:
    pixels = pixels_of([])
    assert pixels.shape[0] > 512
    assert pixels.shape[1:] == (400, 3)
    assert (pixels[:512] == 100).all()
    assert (pixels[512:] > 150).any()
    assert pixels_of([], note="a note of many words " * 8).shape[0] > pixels.shape[0] + 20


def test_a_box_is_framed_at_its_edges_and_clear_inside() -> None:
    box = OverlayBox((100, 200, 300, 400), "Cardiomegaly", 0.87)
    pixels = pixels_of([box])
    colour = ImageColor.getrgb(assign_colours(["Cardiomegaly"])["Cardiomegaly"])
    for row, column in ((200, 350 - 100), (399, 250), (300, 100), (300, 299)):
        assert tuple(pixels[row, column]) == colour
        assert (pixels[row, column] != 100).any()
    assert (pixels[210:390, 110:290] == 100).all()
    assert tuple(pixels[300, 99]) != (100, 100, 100)  # the dark hairline
    assert plates(pixels, "Cardiomegaly", box) > 500


@pytest.mark.parametrize(
    "corner",
    [(0, 0, 40, 40), (360, 0, 400, 40), (0, 472, 40, 512), (360, 472, 400, 512), (0, 0, 400, 512), (-9, -9, 500, 600)],
)
def test_a_label_stays_in_the_picture(corner: tuple[float, float, float, float]) -> None:
    middle = OverlayBox((150, 250, 190, 290), "Pneumothorax", 0.5)
    everywhere = pixels_of([OverlayBox((150, 250, 190, 290), "Pneumothorax", 0.5)])
    cornered = pixels_of([OverlayBox(corner, "Pneumothorax", 0.5)])
    colour = ImageColor.getrgb(assign_colours(["Pneumothorax"])["Pneumothorax"])
    # The same plate of the same size, none of it cut off: at least as much colour as the plate alone has.
    assert (cornered == colour).all(axis=2).sum() >= plates(everywhere, "Pneumothorax", middle)


def test_labels_of_boxes_in_one_place_do_not_cover_each_other() -> None:
    labels = ["Atelectasis", "Calcification", "Cardiomegaly", "Consolidation", "Infiltration", "Nodule/Mass"]
    boxes = [OverlayBox((200, 250, 206, 256), label, 0.5) for label in labels]
    together, colours = pixels_of(boxes), assign_colours(labels)
    for box in boxes:
        alone = (pixels_of([box]) == ImageColor.getrgb(assign_colours([box.label])[box.label])).all(axis=2).sum()
        seen = (together == ImageColor.getrgb(colours[box.label])).all(axis=2).sum()
        assert seen > alone - 40, box.label  # but for its small frame


def test_labels_have_colours_of_their_own_while_the_palette_lasts() -> None:
    labels = [f"class {index}" for index in range(len(PALETTE))]
    assert sorted(assign_colours(labels).values()) == sorted(PALETTE)
    assert set(assign_colours([*labels, "one more"])) == {*labels, "one more"}
    assert assign_colours(labels) == assign_colours(reversed(labels))


def test_the_surest_finding_is_on_top() -> None:
    sure, unsure = OverlayBox((100, 200, 300, 400), "A", 0.9), OverlayBox((100, 200, 300, 400), "B", 0.1)
    colour = ImageColor.getrgb(assign_colours(["A", "B"])["A"])
    for order in ([sure, unsure], [unsure, sure]):
        assert tuple(pixels_of(order)[300, 100]) == colour


@pytest.mark.parametrize("shape", [(64, 64), (64, 1024), (1024, 64)])
def test_small_and_narrow_pictures_can_be_drawn_on(shape: tuple[int, int]) -> None:
    boxes = [OverlayBox((5, 5, 60, 60), "Pleural thickening", 0.333) for _ in range(30)]
    assert pixels_of(boxes, np.zeros(shape, np.uint8), "No findings").shape[1] == shape[1]
