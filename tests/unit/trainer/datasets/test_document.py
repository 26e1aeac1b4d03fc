"""The document that a dataset is: what goes in, what is left out and noted, and what its digest stands for."""

import json
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from shared.detector.card import Category
from shared.errors import InvalidRequest
from shared.training.config import Split
from shared.training.dataset_source import CocoSource, Source, VinBigDataSource
from tests.vinbigdata import picture_of
from trainer.datasets.annotations import AnnotatedImage, Annotations, Box, pseudonym
from trainer.datasets.coco import read_coco
from trainer.datasets.dataset import parse
from trainer.datasets.document import CUT, DUPLICATE, OUTSIDE, SIZE_MISMATCH, digest_of, match, write
from trainer.datasets.figure import draw_figure, format_of
from trainer.datasets.renditions import Picture
from trainer.datasets.summary import summarize

CATEGORIES = (Category(id=3, name="Cardiomegaly"), Category(id=8, name="Nodule/Mass"))
INSIDE = Box(3, (10.0, 20.0, 30.0, 60.0), ("R1", "R2"))
IMAGE = AnnotatedImage("image", (INSIDE,), ("R1", "R2", "R3"))
NORMAL = AnnotatedImage("normal image", (), ("R1",), patient=pseudonym("20"))
SOURCE = VinBigDataSource(annotations="", images="")


def annotations(*images: AnnotatedImage) -> Annotations:
    return Annotations(CATEGORIES, images, {})


def picture(name: str, side_px: int = 100) -> Picture:
    return picture_of(name, side_px)


def document(
    *images: AnnotatedImage, source: Source = SOURCE, splits: list[Split] | None = None, side_px: int = 100
) -> bytes:
    images = images or (IMAGE, NORMAL)
    pictures = {image.file_name: picture(image.file_name, side_px) for image in images}
    content, failures = match(annotations(*images), pictures)
    assert not failures
    return write("films", source, 1024, content, splits or ["train", "val"][: len(images)])


def test_training_and_evaluation_read_what_was_written() -> None:
    dataset = parse(document())
    assert (dataset.name, dataset.digest) == ("films", digest_of(document()))
    assert dataset.categories == CATEGORIES
    image, normal = dataset.images
    assert image.boxes_xyxy_px.tolist() == [[10, 20, 30, 60]]
    assert image.category_ids.tolist() == [3]
    assert (image.split, image.patient, image.group) == ("train", None, f"image:{image.sha256}")
    assert (normal.split, normal.patient) == ("val", pseudonym("20"))
    assert len(normal.boxes_xyxy_px) == 0


def test_training_reads_no_box_that_vanishes_in_float32() -> None:
    """Datasets of earlier versions may hold some: on the original, or only once scaled to the rendition."""
    on_original = Box(8, (20.00000001, 20.0, 20.00000002, 60.0), ())
    stored = json.loads(document(replace(IMAGE, boxes=(on_original, INSIDE)), NORMAL))
    for image in stored["images"]:
        image |= {"rendition_width": 1, "rendition_height": 1}
    width = float(np.nextafter(np.float32(120), np.float32(121))) - 120.0
    stored["annotations"].append(stored["annotations"][0] | {"bbox": [120.0, 10.0, width, 5.0]})
    image = parse(json.dumps(stored).encode()).images[0]
    assert image.boxes_xyxy_px.tolist() == [[10, 20, 30, 60]]
    assert image.category_ids.tolist() == [3]
    boxes = image.boxes_on_rendition
    assert (boxes[:, 2:] > boxes[:, :2]).all()


def test_the_document_can_be_imported_again() -> None:
    read = read_coco(document())
    assert [replace(image, split=None, height_px=None, width_px=None) for image in read.images] == [IMAGE, NORMAL]
    assert [(image.split, image.height_px) for image in read.images] == [("train", 100), ("val", 100)]


def test_the_digest_covers_everything_but_the_order() -> None:
    same = document(NORMAL, IMAGE)
    assert same == document()
    moved = replace(IMAGE, boxes=(replace(INSIDE, xyxy_px=(10.0, 20.0, 30.0, 61.0)),))
    others = [
        document(moved, NORMAL),
        document(replace(IMAGE, boxes=(replace(INSIDE, category_id=8),)), NORMAL),
        document(replace(IMAGE, boxes=(replace(INSIDE, readers=("R1",)),)), NORMAL),
        document(replace(IMAGE, patient=pseudonym("1")), NORMAL),
        document(splits=["train", "train"]),
        document(side_px=101),
        document(source=CocoSource(annotations="", images="")),
    ]
    digests = {digest_of(content) for content in (same, *others)}
    assert len(digests) == 1 + len(others)


def test_boxes_are_cut_at_the_edges_and_counted() -> None:
    sized = replace(
        IMAGE,
        height_px=100,
        width_px=100,
        boxes=(
            INSIDE,
            Box(3, (-5.0, 90.0, 10.0, 120.0), ()),
            Box(3, (95.0, 0.0, 200.0, 10.0), ()),
            Box(3, (100.0, 0.0, 200.0, 10.0), ()),
        ),
    )
    content, failures = match(annotations(sized), {"image": picture("image")})
    assert not failures
    assert [box.xyxy_px for box in content.annotations.images[0].boxes] == [
        INSIDE.xyxy_px,
        (0, 90, 10, 100),
        (95, 0, 100, 10),
    ]
    assert content.annotations.noted == {CUT: 2, OUTSIDE: 1}


@pytest.mark.parametrize(
    ("image", "fits"),
    [
        (replace(IMAGE, height_px=101, width_px=99), True),
        (replace(IMAGE, height_px=102, width_px=100), False),
        (replace(IMAGE, height_px=200, width_px=200), False),
        # Without a size, boxes tell: an image that was made smaller does not hold them.
        (replace(IMAGE, boxes=(Box(3, (50.0, 50.0, 149.0, 100.0), ()),)), True),
        (replace(IMAGE, boxes=(Box(3, (50.0, 50.0, 151.0, 100.0), ()),)), False),
        (replace(IMAGE, boxes=(Box(3, (150.0, 50.0, 160.0, 60.0), ()),)), False),
    ],
)
def test_a_file_of_another_size_is_a_failure(image: AnnotatedImage, fits: bool) -> None:
    content, failures = match(annotations(image), {"image": picture("image")})
    assert [failure.code for failure in failures] == ([] if fits else [SIZE_MISMATCH])
    assert len(content.pictures) == (1 if fits else 0)


def test_one_file_under_two_names_is_taken_once() -> None:
    twin = replace(IMAGE, file_name="twin")
    content, failures = match(annotations(twin, IMAGE), {"image": picture("image"), "twin": picture("image")})
    assert [image.file_name for image in content.annotations.images] == ["image"]
    assert [(failure.file_name, failure.code) for failure in failures] == [("twin", DUPLICATE)]


def test_a_patient_in_the_annotations_goes_before_the_one_in_the_header() -> None:
    of_header = replace(picture("normal image"), patient=pseudonym("header"))
    content, _ = match(annotations(IMAGE, NORMAL), {"image": replace(of_header, sha256="0"), "normal image": of_header})
    assert content.groups() == [pseudonym("header"), pseudonym("20")]


def test_a_summary_counts_by_split_class_reader_and_size() -> None:
    # On the rendition, 1024 pixels for 100, the box of 20 × 40 has 205 × 410 and the other 10 × 10.
    dot = Box(8, (0.0, 0.0, 1.0, 1.0), ("R3",))
    counts = summarize(document(replace(IMAGE, boxes=(INSIDE, dot)), NORMAL))
    assert counts["splits"]["train"] == {"images": 1, "without_findings": 0, "patients": 1, "boxes": 2}
    assert counts["splits"]["val"] == {"images": 1, "without_findings": 1, "patients": 1, "boxes": 0}
    assert counts["images_of_known_patients"] == 1
    assert [(of["id"], of["boxes"]["train"], of["images"], of["sizes"]) for of in counts["classes"]] == [
        (3, 1, 1, {"small": 0, "medium": 0, "large": 1}),
        (8, 1, 1, {"small": 1, "medium": 0, "large": 0}),
    ]
    assert counts["readers"] == [
        {"reader": "R1", "images": 2, "boxes": 1},
        {"reader": "R2", "images": 1, "boxes": 1},
        {"reader": "R3", "images": 1, "boxes": 1},
    ]
    assert counts["sizes"] == {"small": 1, "medium": 0, "large": 1}


def test_a_figure_shows_classes_and_places() -> None:
    with Image.open(BytesIO(draw_figure(document()))) as shown:
        here = np.asarray(shown.convert("RGB")).astype(int)
    corner = Box(3, (90.0, 90.0, 100.0, 100.0), ())
    with Image.open(BytesIO(draw_figure(document(replace(IMAGE, boxes=(corner,)), NORMAL)))) as shown:
        there = np.asarray(shown.convert("RGB")).astype(int)
    # Only the cell of the box has moved, on the map's half of the picture: to the right, and down.
    (rows, columns) = np.nonzero(np.abs(here - there).sum(axis=2))
    assert columns.min() > here.shape[1] / 2
    assert there[rows.max(), columns.max()].sum() > there[rows.min(), columns.min()].sum()
    assert draw_figure(document(), "svg").lstrip().startswith(b"<?xml")
    assert draw_figure(document(replace(IMAGE, boxes=()), NORMAL)), "a dataset without a box has a figure, too"


def test_a_figure_is_png_or_svg() -> None:
    assert (format_of("a.PNG"), format_of("b.svg")) == ("png", "svg")
    with pytest.raises(InvalidRequest):
        format_of("a.pdf")


def test_a_document_tells_nothing_of_when_and_where() -> None:
    content = json.loads(document(source=VinBigDataSource(annotations="/home/somebody/train.csv", images="/data")))
    assert "somebody" not in json.dumps(content)
    assert set(content["info"]) == {"name", "description", "rendition_version", "rendition_px", "choices"}
