"""COCO documents: read, joined, and refused where they contradict themselves."""

import copy
import gzip
import json
from typing import Any

import pytest

from trainer.datasets.annotations import MalformedAnnotations, pseudonym
from trainer.datasets.coco import CROWD, WITHOUT_AREA, join, read_coco

DOCUMENT: dict[str, Any] = {
    "info": {"description": "two images"},
    "licenses": [],
    "categories": [{"id": 7, "name": "Lung Opacity", "supercategory": "lung"}, {"id": 3, "name": "Cardiomegaly"}],
    "images": [
        {"id": 10, "file_name": "a.png", "width": 100, "height": 200, "patient": 20, "secret": "x"},
        {"id": 11, "file_name": "b/c.dcm", "patient_id": "20", "split": "val", "readers": ["R2", "R1"]},
    ],
    "annotations": [
        {"id": 1, "image_id": 10, "category_id": 7, "bbox": [1, 2.5, 30, 40], "iscrowd": 0, "segmentation": [[1, 2]]},
        {"id": 2, "image_id": 11, "category_id": 3, "bbox": [0, 0, 9, 9], "readers": ["R3"]},
        {"id": 3, "image_id": 10, "category_id": 7, "bbox": [1, 2, 0, 40]},
        {"id": 4, "image_id": 10, "category_id": 7, "bbox": [1, 2, 5, -1]},
        {"id": 5, "image_id": 10, "category_id": 7, "bbox": [1, 2, 5, 5], "iscrowd": 1},
    ],
}


def document(**changes: Any) -> bytes:
    return json.dumps(DOCUMENT | changes).encode()


def changed(part: str, index: int, **values: Any) -> bytes:
    """The document with values of one of its entries changed; None removes one."""
    content = copy.deepcopy(DOCUMENT)
    for name, value in values.items():
        if value is None:
            del content[part][index][name]
        else:
            content[part][index][name] = value
    return json.dumps(content).encode()


def test_a_document_is_read() -> None:
    annotations = read_coco(document())
    assert [category.id for category in annotations.categories] == [3, 7]
    first, second = annotations.images
    assert (first.file_name, first.width_px, first.height_px, first.split) == ("a.png", 100, 200, None)
    assert [(box.category_id, box.xyxy_px, box.readers) for box in first.boxes] == [(7, (1, 2.5, 31, 42.5), ())]
    assert (second.split, second.readers, second.width_px) == ("val", ("R1", "R2", "R3"), None)
    assert annotations.noted == {WITHOUT_AREA: 2, CROWD: 1}


@pytest.mark.parametrize("unknown", ["", float("nan")])
def test_an_empty_patient_is_none(unknown: object) -> None:
    first, second = read_coco(changed("images", 0, patient=unknown)).images
    assert first.patient is None
    assert len(first.boxes) == 1
    assert second.patient is not None


@pytest.mark.parametrize("number", [10**400, -(10**400)], ids=["huge", "minus huge"])
def test_numbers_beyond_every_float_cost_no_document(number: int) -> None:
    first, second = DOCUMENT["annotations"][:2]
    with_area = document(annotations=[first | {"area": number, "segmentation": None}, second])
    assert read_coco(with_area).images[0].boxes[0].xyxy_px == (1, 2.5, 31, 42.5)
    outline = document(annotations=[first | {"bbox": None, "segmentation": [[number, 1, 2, 2, 3, 3]]}, second])
    assert read_coco(outline).culprits["annotation_unreadable"] == ("annotation 1",)


def test_an_annotation_that_repeats_another_with_its_id_is_left_out_once() -> None:
    content = copy.deepcopy(DOCUMENT)
    content["annotations"] += [copy.deepcopy(content["annotations"][0])]
    annotations = read_coco(json.dumps(content).encode())
    assert annotations.images == read_coco(document()).images
    assert annotations.noted["row_repeated"] == 1


def test_names_of_categories_are_told_apart_as_classes_are() -> None:
    categories = [{"id": 7, "name": "Lung Opacity "}, {"id": 3, "name": "lung_opacity"}]
    with pytest.raises(MalformedAnnotations, match="Every name of a category must be unique"):
        read_coco(document(categories=categories))
    categories[1]["name"] = " Cardiomegaly"
    assert [category.name for category in read_coco(document(categories=categories)).categories] == [
        "Cardiomegaly",
        "Lung Opacity",
    ]


def test_a_reason_names_the_field_as_the_document_does() -> None:
    with pytest.raises(MalformedAnnotations, match=r"^Image 10: patient: "):
        read_coco(document(images=[DOCUMENT["images"][0] | {"patient": ["x"]}]))


def test_a_patient_is_a_pseudonym_that_stays_what_it_is() -> None:
    first, second = read_coco(document()).images
    assert first.patient == second.patient == pseudonym("20"), "20 and '20' are one patient"
    assert "20" != first.patient != pseudonym("21")
    (again, _) = read_coco(changed("images", 0, patient=first.patient)).images
    assert again.patient == first.patient


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"\xff",
        b'{"images": []}',
        changed("images", 1, id=10),
        changed("images", 1, file_name="a.png"),
        changed("images", 0, file_name=None),
        changed("images", 0, width=0),
        changed("categories", 0, id=3),
        changed("categories", 0, name="Cardiomegaly"),
        changed("annotations", 0, id=2),
        changed("annotations", 0, image_id=12),
        changed("annotations", 0, category_id=1),
        changed("annotations", 0, bbox=[1, 2, 3]),
        changed("annotations", 0, bbox=["a", 2, 3, 4]),
        changed("annotations", 0, bbox=[float("nan"), 2, 3, 4]),
        changed("annotations", 0, bbox=[1, 2, float("inf"), 4]),
        changed("annotations", 0, far_corner=[32, 42.5]),
    ],
)
def test_a_document_that_contradicts_itself_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedAnnotations):
        read_coco(data)


def many(**values: Any) -> dict[str, Any]:
    """A document of ten good annotations and one more with these values."""
    good = [{"id": number, "image_id": 10, "category_id": 7, "bbox": [1, 2, 30, 40]} for number in range(10)]
    return DOCUMENT | {"annotations": [*good, good[0] | {"id": 99} | values]}


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"bbox": [1, 2, 3]}, "annotation_unreadable"),
        ({"bbox": None}, "annotation_unreadable"),
        ({"bbox": [float("nan"), 2, 3, 4]}, "annotation_unreadable"),
        ({"image_id": 12}, "annotation_unreadable"),
        ({"category_id": 1}, "annotation_unreadable"),
        ({"bbox": [0, 0, 0, 0]}, WITHOUT_AREA),
        ({"iscrowd": 1}, CROWD),
        ({"area": 9.0}, "area_contradicts"),
    ],
)
def test_an_odd_annotation_costs_itself_and_is_noted_with_its_id(values: dict[str, Any], code: str) -> None:
    annotations = read_coco(json.dumps(many(**values)).encode())
    assert annotations.noted == {code: 1}
    assert annotations.culprits == {code: ("annotation 99",)}
    assert len(annotations.images[0].boxes) == (11 if code == "area_contradicts" else 10)


def test_an_image_that_cannot_be_read_costs_itself_and_its_annotations() -> None:
    content = many(image_id=13)
    content["images"] = [*content["images"], {"id": 13, "file_name": "a\0b.png"}]
    assert read_coco(json.dumps(content).encode()).noted == {"image_unreadable": 1, "annotation_unreadable": 1}


def test_an_entry_that_is_no_object_costs_itself() -> None:
    content = many()
    content["annotations"].append(None)
    assert read_coco(json.dumps(content).encode()).culprits == {"annotation_unreadable": ("annotation at place 11",)}


def test_a_document_of_normal_images_needs_no_categories() -> None:
    annotations = read_coco(json.dumps({"images": [{"id": 1, "file_name": "a.png"}], "annotations": []}).encode())
    assert (annotations.categories, len(annotations.images)) == ((), 1)


def test_an_outline_gives_a_box_where_there_is_none() -> None:
    content = many(bbox=None, segmentation=[[5, 6, 25, 6, 25, 36], [1, 8, 9, 9, 2, 2]])
    annotations = read_coco(json.dumps(content).encode())
    assert annotations.images[0].boxes[-1].xyxy_px == (1, 2, 25, 36)
    assert annotations.noted == {}


def test_ids_may_be_text() -> None:
    content = {
        "images": [{"id": "image-1", "file_name": "a.png"}, {"id": 2, "file_name": "b.png"}],
        "annotations": [
            {"id": "x", "image_id": "image-1", "category_id": "7", "bbox": [1, 2, 3, 4]},
            {"id": "y", "image_id": "2", "category_id": 7, "bbox": [1, 2, 3, 4]},
        ],
        "categories": [{"id": "7", "name": "Lung Opacity"}],
    }
    assert [len(image.boxes) for image in read_coco(json.dumps(content).encode()).images] == [1, 1]


@pytest.mark.parametrize(
    ("word", "split"),
    [("train", "train"), ("Training", "train"), ("valid", "val"), ("validation", "val"), ("testing", "test")],
)
def test_other_words_for_the_splits_are_known(word: str, split: str) -> None:
    annotations = read_coco(changed("images", 0, split=word))
    assert annotations.images[0].split == split
    assert "split_unknown" not in annotations.noted


@pytest.mark.parametrize("word", ["fold 3", 3, [1]])
def test_an_unknown_split_is_ignored_and_noted(word: Any) -> None:
    annotations = read_coco(changed("images", 0, split=word))
    assert annotations.images[0].split is None
    assert annotations.culprits["split_unknown"] == ("image 10",)


def test_a_category_of_normal_images_is_none() -> None:
    content = many(category_id=14, bbox=[0, 0, 1, 1])
    content["categories"] = [*content["categories"], {"id": 14, "name": "No finding"}]
    annotations = read_coco(json.dumps(content).encode())
    assert [category.id for category in annotations.categories] == [3, 7]
    assert annotations.noted == {"box_of_no_finding": 1}


@pytest.mark.parametrize("name", ["A\0B", "x" * 5000, "a\nb"])
def test_a_category_that_cannot_be_stored_is_refused(name: str) -> None:
    with pytest.raises(MalformedAnnotations, match=r"^categories\.0\.name: "):
        read_coco(changed("categories", 0, name=name))


def test_a_document_may_be_compressed_and_begin_with_a_byte_order_mark() -> None:
    assert read_coco(gzip.compress(b"\xef\xbb\xbf" + document())) == read_coco(document())
    assert read_coco(document().decode().encode("utf-16")) == read_coco(document())


def test_documents_of_splits_are_joined() -> None:
    val = document(images=[{"id": 10, "file_name": "z.png"}], annotations=[DOCUMENT["annotations"][0]])
    joined = join({"train": read_coco(document()), "val": read_coco(val)})
    assert [(image.file_name, image.split, len(image.boxes)) for image in joined.images] == [
        ("a.png", "train", 1),
        ("b/c.dcm", "train", 1),
        ("z.png", "val", 1),
    ]
    assert joined.noted == {WITHOUT_AREA: 2, CROWD: 1}
    assert joined.culprits[WITHOUT_AREA] == ("annotation 3 of train", "annotation 4 of train")


def test_documents_that_do_not_fit_together_are_refused() -> None:
    train = read_coco(document())
    other_classes = read_coco(document(categories=[{"id": 3, "name": "x"}], annotations=[], images=[]))
    with pytest.raises(MalformedAnnotations, match="different categories: 3 Cardiomegaly, 3 x, 7 Lung Opacity"):
        join({"train": train, "val": other_classes})
    with pytest.raises(MalformedAnnotations, match="unique"):
        join({"train": train, "test": train})
