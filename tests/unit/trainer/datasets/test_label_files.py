"""YOLO's and Pascal VOC's files: read, refused where they contradict themselves, and the same again after an export."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shared.training.dataset_source import CocoSource, SplitPlan
from tests.vinbigdata import picture_of
from trainer.datasets.annotations import Annotations, ImplausibleBoxes, MalformedAnnotations, pseudonym
from trainer.datasets.coco import read_coco
from trainer.datasets.document import match, write
from trainer.datasets.export import FORMATS, NamesCollide
from trainer.datasets.making import split
from trainer.datasets.notes import MESSAGES
from trainer.datasets.places import Folder
from trainer.datasets.voc import read_voc
from trainer.datasets.yolo import read_yolo

CLASSES = b"names: [Aortic enlargement, Cardiomegaly, No finding]\n"
KEPT = CocoSource(annotations="", images="", splits=SplitPlan(keep=True))
Files = dict[str, bytes]


def folder_of(path: Path, files: Files) -> Folder:
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return Folder(path)


def yolo(path: Path, files: Files, images: tuple[str, ...] = ("a.png",)) -> Annotations:
    labels = folder_of(path / "labels of it", {"data.yaml": CLASSES} | files)
    return read_yolo(labels, folder_of(path / "films", dict.fromkeys(images, b"")))


def voc(path: Path, files: Files, images: tuple[str, ...] = ("a.png",)) -> Annotations:
    return read_voc(folder_of(path / "xml", files), folder_of(path / "films", dict.fromkeys(images, b"")))


def document_of(annotations: Annotations, side_px: int = 200) -> dict[str, Any]:
    """The dataset's document for square images of this size."""
    pictures = {image.file_name: picture_of(image.file_name, side_px) for image in annotations.images}
    content, failures = match(annotations, pictures)
    assert not failures
    document: dict[str, Any] = json.loads(write("films", KEPT, 100, content, split(KEPT, content)))
    return document


def xml(
    *objects: str, size: tuple[object, object] | None = (200, 200), filename: str = "a.png", more: str = ""
) -> bytes:
    sides = "" if size is None else f"<size><width>{size[0]}</width><height>{size[1]}</height></size>"
    name = f"<filename>{filename}</filename>" if filename else ""
    return f"<annotation>{name}{sides}{more}{''.join(objects)}</annotation>".encode()


def thing(box: tuple[object, ...], name: str = "Cardiomegaly", more: str = "") -> str:
    sides = "".join(f"<{side}>{at}</{side}>" for side, at in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    return f"<object><name>{name}</name>{more}<bndbox>{sides}</bndbox></object>"


def boxes_px(annotations: Annotations) -> list[list[float]]:
    return [box["bbox"] for box in document_of(_in_train(annotations))["annotations"]]


def _in_train(annotations: Annotations) -> Annotations:
    return replace(annotations, images=tuple(replace(image, split="train") for image in annotations.images))


def test_yolo_boxes_are_shares_around_a_centre(tmp_path: Path) -> None:
    found = yolo(tmp_path, {"a.txt": b"1 0.5 0.25 0.2 0.1\n0 0.1 0.1 0.3 0.1 0.3 0.5 0.2 0.5\n"})
    assert [category.name for category in found.categories] == ["Aortic enlargement", "Cardiomegaly"]
    assert boxes_px(found) == [[80, 40, 40, 20], [20, 20, 40, 80]], "the second is an outline"
    assert found.noted == {}


@pytest.mark.parametrize(
    "content",
    [b"", b"\n\n", b"\xef\xbb\xbf", b"2 0.5 0.5 1 1\r\n"],
    ids=["empty", "blank", "byte order mark", "no finding"],
)
def test_an_empty_label_file_is_a_normal_image(tmp_path: Path, content: bytes) -> None:
    (image,) = yolo(tmp_path, {"a.txt": content}).images
    assert (image.file_name, image.boxes) == ("a.png", ())


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"7 0.5 0.5 0.1 0.1", "class_unknown"),
        (b"-1 0.5 0.5 0.1 0.1", "class_unknown"),
        (b"1 0.5 0.5 0 0.1", "box_without_area"),
        (b"1 0.5 0.5 -0.1 0.1", "box_without_area"),
        (b"1 0.5 0.5 0.1", "annotation_unreadable"),
        (b"1 0.5 0.5 0.1 0.1 0.9", "annotation_unreadable"),
        (b"1 nan 0.5 0.1 0.1", "annotation_unreadable"),
        (b"1.5 0.5 0.5 0.1 0.1", "annotation_unreadable"),
        (b"heart 0.5 0.5 0.1 0.1", "annotation_unreadable"),
        (b"1 0.3 0.3 0.1 0.1", "row_repeated"),
        (b"2 0.3 0.3 0.1 0.1", "box_of_no_finding"),
    ],
)
def test_an_odd_line_is_left_out_and_named(tmp_path: Path, line: bytes, code: str) -> None:
    found = yolo(tmp_path, {"a.txt": b"\xef\xbb\xbf1 0.3 0.3 0.1 0.1\r\n1.0 0.6 0.6 0.1 0.1\r\n" + line + b"\r\n"})
    assert len(found.images[0].boxes) == 2
    assert (found.noted, found.culprits) == ({code: 1}, {code: ("a.txt line 3",)})
    assert code in MESSAGES


def test_a_box_past_the_edge_is_cut_and_one_outside_left_out(tmp_path: Path) -> None:
    found = yolo(tmp_path, {"a.txt": b"1 0.95 0.5 0.2 0.1\n1 1.3 0.5 0.2 0.1\n1 0.5 0.5 0.1 0.1\n"})
    content, _ = match(found, {"a.png": picture_of("a.png", 200)})
    assert content.annotations.noted == {"box_cut_at_the_edge": 1, "box_outside_the_image": 1}


def test_labels_in_pixels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ImplausibleBoxes, match="not shares"):
        yolo(tmp_path, {"a.txt": b"1 100 100 50 50\n"})


def test_mostly_unusable_labels_are_refused_with_the_first_reason(tmp_path: Path) -> None:
    with pytest.raises(MalformedAnnotations, match=r"a.txt line 1 has class 7.*2 of 3"):
        yolo(tmp_path, {"a.txt": b"7 0.5 0.5 0.1 0.1\n8 0.5 0.5 0.1 0.1\n1 0.5 0.5 0.1 0.1\n"})


def test_a_label_file_that_is_no_text_is_noted(tmp_path: Path) -> None:
    files = {"a.txt": b"1 0.5 0.5 0.1 0.1\n", "b.txt": b"1 0.5 0.5 0.1 0.1 \xff\xfe\xfd"}
    found = yolo(tmp_path, files, ("a.png", "b.png"))
    assert [image.file_name for image in found.images] == ["a.png"]
    assert found.noted == {"image_unreadable": 1}


@pytest.mark.parametrize("labels", ["labels/val/a.txt", "val/labels/a.txt", "val/a.txt"])
@pytest.mark.parametrize("images", ["images/val/a.jpg", "val/images/a.jpg", "a.jpg", "val/a.jpg"])
def test_labels_find_their_images_in_the_usual_folders(tmp_path: Path, labels: str, images: str) -> None:
    found = yolo(tmp_path, {labels: b"1 0.5 0.5 0.1 0.1\n", "train.txt": b"images/a.jpg\n"}, (images, "other/b.jpg"))
    assert [(image.file_name, image.split, len(image.boxes)) for image in found.images] == [
        (images, "val", 1),
        ("other/b.jpg", None, 0),
    ]
    assert found.noted == {"image_without_label_file": 1}


@pytest.mark.parametrize(
    ("classes", "why"),
    [
        ({"data.yaml": b"names: 3\n"}, "must be a list"),
        ({"data.yaml": b"names: [a, A]\n"}, "same name"),
        ({"data.yaml": b"names: [a, '']\n"}, "class 1 has no name"),
        ({"data.yaml": b"names: [a, b]\ncategory_ids: [1, 1]\n"}, "different number"),
        ({"data.yaml": b"names: [a\n"}, "not valid YAML"),
        ({"data.yaml": b"names: !!python/object/apply:os.getcwd []\n"}, "not valid YAML"),
        ({"data.yaml": b"nc: 3\n"}, "no list of classes"),
        ({"classes.txt": b"a\n\nb\n"}, "class 1 has no name"),
    ],
)
def test_an_odd_list_of_classes_is_refused(tmp_path: Path, classes: Files, why: str) -> None:
    labels = folder_of(tmp_path / "l", {"a.txt": b""} | classes)
    with pytest.raises(MalformedAnnotations, match=why):
        read_yolo(labels, folder_of(tmp_path / "i", {"a.png": b""}))


@pytest.mark.parametrize(
    "classes",
    [
        {"classes.txt": b"Edema\r\nNodule/Mass\r\n"},
        {"obj.names": b"Edema\nNodule/Mass"},
        {"x.yml": b"names: {0: Edema, 1: Nodule/Mass}"},
    ],
    ids=["classes.txt", "obj.names", "names by number"],
)
def test_lists_of_classes(tmp_path: Path, classes: Files) -> None:
    labels = folder_of(tmp_path / "l", {"a.txt": b"1 0.5 0.5 0.1 0.1\n"} | classes)
    found = read_yolo(labels, folder_of(tmp_path / "i", {"a.png": b""}))
    assert [(category.id, category.name) for category in found.categories] == [(0, "Edema"), (1, "Nodule/Mass")]
    assert [box.category_id for box in found.images[0].boxes] == [1]


def test_labels_without_their_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MalformedAnnotations, match="Not one of the 1 label files"):
        yolo(tmp_path, {"labels/c.txt": b""})
    with pytest.raises(MalformedAnnotations, match="labels of one image"):
        yolo(tmp_path / "two", {"x/a.txt": b"", "y/a.txt": b""})


def test_voc_corners_are_pixels_counted_from_one(tmp_path: Path) -> None:
    """The first pixel is `1 1 1 1`, and the whole image of 200 × 200 pixels is `1 1 200 200`."""
    found = voc(tmp_path, {"a.xml": xml(thing((1, 1, 1, 1)), thing((1, 1, 200, 200)), thing((11, 21, 30.5, 40)))})
    assert [box.xyxy_px for box in found.images[0].boxes] == [(0, 0, 1, 1), (0, 0, 200, 200), (10, 20, 30.5, 40)]
    assert [(category.id, category.name) for category in found.categories] == [(3, "Cardiomegaly")]
    assert (found.images[0].width_px, found.images[0].height_px, found.noted) == (200, 200, {})


@pytest.mark.parametrize(
    ("odd", "code"),
    [
        (thing((11, 11, 20, 20), more="<difficult>1</difficult>"), "difficult_object"),
        (thing((11, 11, 10, 20)), "box_without_area"),
        (thing((20, 11, 10, 20)), "corners_swapped"),
        (thing(("", 11, 10, 20)), "annotation_unreadable"),
        (thing(("nan", 11, 10, 20)), "annotation_unreadable"),
        (thing((1, 1, "1e999", 20)), "annotation_unreadable"),
        ("<object><name>Edema</name></object>", "annotation_unreadable"),
        (thing((11, 11, 20, 20), name=" "), "annotation_unreadable"),
        (thing((11, 11, 20, 20), name="no_finding"), "box_of_no_finding"),
        (thing((2, 2, 9, 9)), "row_repeated"),
    ],
)
def test_an_odd_object_is_left_out_and_named(tmp_path: Path, odd: str, code: str) -> None:
    found = voc(tmp_path, {"a.xml": xml(thing((2, 2, 9, 9)), thing((3, 3, 9, 9)), odd)})
    assert len(found.images[0].boxes) == 2
    assert (found.noted, found.culprits) == ({code: 1}, {code: ("a.xml object 3",)})
    assert code in MESSAGES


BOMB = b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;">]>' + xml(filename="&b;")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (BOMB, "DOCTYPE"),
        (b'<!DOCTYPE x SYSTEM "file:///etc/passwd">' + xml(), "DOCTYPE"),
        (b"<annotation>", "not valid XML"),
        (b"", "not valid XML"),
        (b"<html></html>", "not <annotation>"),
        (xml(filename="\xe9").decode().encode("latin-1"), "not valid XML"),
        (b'<?xml version="1.0" encoding="none"?>' + xml(), "not valid XML"),
        (xml(filename="a" * 2000), "too long"),
    ],
)
def test_a_file_that_cannot_be_read_is_noted_and_the_only_one_refused(tmp_path: Path, content: bytes, why: str) -> None:
    good = {"g.xml": xml(thing((1, 1, 9, 9)), filename="g.png")}
    assert voc(tmp_path / "two", good | {"a.xml": content}, ("g.png",)).noted == {"image_unreadable": 1}
    with pytest.raises(MalformedAnnotations, match=why):
        voc(tmp_path / "one", {"a.xml": content})


@pytest.mark.parametrize(
    "content",
    [
        b'\xef\xbb\xbf<?xml version="1.0"?>\r\n' + xml(thing((1, 1, 9, 9))).replace(b"><", b">\r\n<"),
        '<?xml version="1.0" encoding="utf-16"?>'.encode("utf-16")
        + xml(thing((1, 1, 9, 9))).decode().encode("utf-16-le"),
        b'\n<?xml version="1.0" encoding="iso-8859-1"?>'
        + xml(thing((1, 1, 9, 9)), more="<folder>\xe9</folder>").decode().encode("latin-1"),
        xml(thing((1, 1, 9, 9)), filename=r"C:\ward 3\a.png"),
        xml(thing((1, 1, 9, 9)), filename=r"ward\a.png"),
        xml(thing((1, 1, 9, 9)), filename="/home/me/a.png"),
        xml(thing((1, 1, 9, 9)), filename="../a.png"),
        xml(thing((1, 1, 9, 9)), filename="a.jpg"),
    ],
    ids=["bom and crlf", "utf-16", "latin-1", "windows", "backslash", "absolute", "above", "other suffix"],
)
def test_files_of_other_tools(tmp_path: Path, content: bytes) -> None:
    (image,) = voc(tmp_path, {"a.xml": content}).images
    assert Path(image.file_name).stem == "a"
    assert "/" not in image.file_name
    assert [box.xyxy_px for box in image.boxes] == [(0, 0, 9, 9)]


@pytest.mark.parametrize("size", [None, (0, 0), ("", "x"), (200, 0)])
def test_a_size_that_is_missing_is_unknown(tmp_path: Path, size: tuple[object, object] | None) -> None:
    (image,) = voc(tmp_path, {"a.xml": xml(thing((1, 1, 9, 9)), size=size, filename="")}).images
    assert (image.file_name, image.width_px, image.height_px) == ("a", None, None)


def test_two_files_of_one_image(tmp_path: Path) -> None:
    same = xml(thing((1, 1, 9, 9)))
    found = voc(tmp_path / "same", {"a.xml": same, "copy.xml": same})
    assert (len(found.images), found.noted) == (1, {"row_repeated": 1})
    with pytest.raises(MalformedAnnotations, match=r"a\.xml and b\.xml annotate the same image"):
        voc(tmp_path / "other", {"a.xml": same, "b.xml": xml(thing((2, 2, 9, 9)), filename="a.jpg")})


def test_classes_of_a_list_only(tmp_path: Path) -> None:
    files = {
        "data.yaml": b"names: [Cardiomegaly, Edema]",
        "a.xml": xml(thing((1, 1, 9, 9)), thing((1, 1, 8, 8), "Rib")),
    }
    found = voc(tmp_path, files)
    assert [(category.id, category.name) for category in found.categories] == [(0, "Cardiomegaly"), (1, "Edema")]
    assert found.noted == {"class_unknown": 1}


#: Classes whose ids are not their positions, one without a box; patients, readers, splits, a name in a folder.
DATASET = {
    "categories": [
        {"id": 7, "name": "Lung: <opacity> №1"},
        {"id": 3, "name": "Cardiomegaly"},
        {"id": 40, "name": "Rare"},
    ],
    "images": [
        {
            "id": 1,
            "file_name": "a.png",
            "width": 200,
            "height": 200,
            "split": "train",
            "patient": "p1",
            "readers": ["R1", "R 2"],
        },
        {"id": 2, "file_name": "b/c.1.dcm", "width": 200, "height": 200, "split": "val", "readers": ["R1"]},
        {"id": 3, "file_name": "d & e.png", "width": 200, "height": 200, "split": "test", "patient": "p2"},
    ],
    "annotations": [
        {"image_id": 1, "category_id": 3, "bbox": [0, 0, 200, 200], "readers": ["R1", "R 2"]},
        {"image_id": 1, "category_id": 7, "bbox": [10, 20.5, 33, 7.25], "readers": ["R 2"]},
        {"image_id": 2, "category_id": 7, "bbox": [199, 0, 1, 1], "readers": ["R1"]},
    ],
}
IMAGES = tuple(str(image["file_name"]) for image in DATASET["images"])


def exported(path: Path, document: dict[str, Any], form: str) -> Folder:
    return folder_of(path / form, dict(FORMATS[form](json.dumps(document).encode())))


def original() -> dict[str, Any]:
    return document_of(read_coco(json.dumps(DATASET).encode()))


def test_what_is_exported_as_voc_is_imported_as_the_same_dataset(tmp_path: Path) -> None:
    document = original()
    found = read_voc(exported(tmp_path, document, "voc"), folder_of(tmp_path / "i", dict.fromkeys(IMAGES, b"")))
    assert document_of(found) == document
    assert document["images"][0]["patient"] == pseudonym("p1")
    assert found.noted == {}


def test_what_is_exported_as_yolo_is_imported_without_readers_and_patients(tmp_path: Path) -> None:
    document = original()
    found = read_yolo(exported(tmp_path, document, "yolo"), folder_of(tmp_path / "i", dict.fromkeys(IMAGES, b"")))
    for image in document["images"]:
        image |= {"readers": [], "patient": None}
    for box in document["annotations"]:
        box["readers"] = []
        del box["agreement"]
    assert document_of(found) == document
    assert found.noted == {}


@pytest.mark.parametrize("left", [0.1, 1 / 3, 1e-7, 123.4567890123456789, 2 / 7 + 100])
def test_fractions_of_pixels_survive(tmp_path: Path, left: float) -> None:
    """VOC keeps each number; YOLO's shares keep it to a nanopixel."""
    dataset = DATASET | {"annotations": [{"image_id": 1, "category_id": 3, "bbox": [left, left, 20.7, 1 / 7]}]}
    document = document_of(read_coco(json.dumps(dataset).encode()))
    images = folder_of(tmp_path / "i", dict.fromkeys(IMAGES, b""))
    assert document_of(read_voc(exported(tmp_path, document, "voc"), images))["annotations"] == document["annotations"]
    (box,) = document_of(read_yolo(exported(tmp_path, document, "yolo"), images))["annotations"]
    assert box["bbox"] == pytest.approx(document["annotations"][0]["bbox"], abs=1e-9)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", ["a.dcm", "A.jpg", "../x.png", "/etc/x.png", r"C:\x.png"])
def test_a_file_is_written_for_one_image_and_inside_the_folder(form: str, name: str) -> None:
    document = original()
    document["images"][1]["file_name"] = name
    with pytest.raises(NamesCollide, match="coco"):
        list(FORMATS[form](json.dumps(document).encode()))
