"""COCO documents: read, joined, and refused where they contradict themselves."""

import copy
import json
from typing import Any

import pytest

from trainer.datasets.annotations import MalformedAnnotations, pseudonym
from trainer.datasets.coco import CROWD, WITHOUT_AREA, join, read_coco

DOCUMENT: dict[str, Any] = {
    "info": {"description": "two films"},
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
        changed("images", 0, split="training"),
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


def test_documents_of_splits_are_joined() -> None:
    val = document(images=[{"id": 10, "file_name": "z.png"}], annotations=[DOCUMENT["annotations"][0]])
    joined = join({"train": read_coco(document()), "val": read_coco(val)})
    assert [(image.file_name, image.split, len(image.boxes)) for image in joined.images] == [
        ("a.png", "train", 1),
        ("b/c.dcm", "train", 1),
        ("z.png", "val", 1),
    ]
    assert joined.noted == {WITHOUT_AREA: 2, CROWD: 1}


def test_documents_that_do_not_fit_together_are_refused() -> None:
    train = read_coco(document())
    other_classes = read_coco(document(categories=[{"id": 3, "name": "x"}], annotations=[], images=[]))
    with pytest.raises(MalformedAnnotations, match="different categories"):
        join({"train": train, "val": other_classes})
    with pytest.raises(MalformedAnnotations, match="unique"):
        join({"train": train, "test": train})
