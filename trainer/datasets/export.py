"""Writes a dataset's COCO document in other formats. The images are not written, only their annotations."""

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from decimal import Context, Decimal
from pathlib import PurePosixPath
from typing import Any
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from shared.errors import PermanentError
from trainer.datasets.annotations import FAR_CORNER, PROBABILITY, Xyxy, to_xyxy
from trainer.datasets.label_files import stem_of
from trainer.datasets.splits import SPLITS

#: More digits than a coordinate needs, so that its sum with 1 is exact.
_EXACT = Context(prec=60)


class NamesCollide(PermanentError):
    """Two images of the dataset would have one file of annotations. Export as `coco`."""

    code = "names_collide"


#: The files of an export: their relative paths with their content.
Files = Iterator[tuple[str, bytes]]


def write_yolo(document: bytes) -> Files:
    """Yield `data.yaml`, and for each image a file of labels in the folder of its split."""
    content = json.loads(document)
    place_of = {category["id"]: place for place, category in enumerate(content["categories"])}
    paths = "".join(f"{split}: images/{split}\n" for split in SPLITS)
    yield "data.yaml", ("path: .\n" + paths + _class_list(content)).encode()
    for image, stem, boxes in _images(content):
        lines = []
        for box in boxes:
            left, top, right, bottom = _corners(box)
            width, height = image["width"], image["height"]
            centre = (left + right) / 2 / width, (top + bottom) / 2 / height
            size = (right - left) / width, (bottom - top) / height
            lines.append(" ".join(map(repr, (place_of[box["category_id"]], *centre, *size))) + "\n")
        yield f"labels/{image['split']}/{stem}.txt", "".join(lines).encode()


def write_voc(document: bytes) -> Files:
    """Yield `data.yaml` with the classes, the images of each split, and for each image an XML file."""
    content = json.loads(document)
    names = {category["id"]: category["name"] for category in content["categories"]}
    yield "data.yaml", _class_list(content).encode()
    members: defaultdict[str, list[str]] = defaultdict(list)
    for image, stem, boxes in _images(content):
        members[image["split"]].append(f"{stem}\n")
        root = Element("annotation")
        _put(root, filename=image["file_name"], patient=image["patient"])
        _put(SubElement(root, "size"), width=image["width"], height=image["height"], depth=1)
        _put_readers(root, image)
        for box in boxes:
            entry = SubElement(root, "object")
            _put(entry, name=names[box["category_id"]], difficult=0)
            left, top, right, bottom = (Decimal(repr(float(side))) for side in _corners(box))
            sides = {"xmin": _EXACT.add(left, Decimal(1)), "ymin": _EXACT.add(top, Decimal(1))}
            sides |= {"xmax": right, "ymax": bottom}
            plain = {side: f"{value.normalize(_EXACT):f}" for side, value in sides.items()}
            _put(SubElement(entry, "bndbox"), **plain)
            _put_readers(entry, box)
            _put(entry, **{PROBABILITY: box.get(PROBABILITY)})
        indent(root)
        yield f"Annotations/{stem}.xml", tostring(root, encoding="utf-8")
    for split in SPLITS:
        yield f"ImageSets/Main/{split}.txt", "".join(members[split]).encode()


#: The formats of an export beside COCO, which is the document itself.
FORMATS: Mapping[str, Callable[[bytes], Files]] = {"yolo": write_yolo, "voc": write_voc}


def _class_list(content: Mapping[str, Any]) -> str:
    """Return the classes for `data.yaml`; JSON is valid in YAML."""
    names = [category["name"] for category in content["categories"]]
    ids = [category["id"] for category in content["categories"]]
    listed = f"names: {json.dumps(names, ensure_ascii=False)}\n"
    return listed if ids == [*range(len(ids))] else f"{listed}category_ids: {json.dumps(ids)}\n"


def _images(content: Mapping[str, Any]) -> Iterator[tuple[dict[str, Any], str, list[dict[str, Any]]]]:
    """Yield each image with the name of its file of annotations, without suffix, and its boxes.

    Raises `NamesCollide` if two images have the same name, and for a name outside the folder.
    """
    boxes: defaultdict[int, list[dict[str, Any]]] = defaultdict(list)
    for box in content["annotations"]:
        boxes[box["image_id"]].append(box)
    first: dict[str, str] = {}
    for image in content["images"]:
        stem, path = stem_of(image["file_name"]), PurePosixPath(stem_of(image["file_name"]))
        if path.is_absolute() or ".." in path.parts or ":" in path.parts[0]:
            raise NamesCollide(f"{image['file_name']} is outside the folder of the export. Export as `coco`.")
        if stem.casefold() in first:
            both = f"{first[stem.casefold()]} and {image['file_name']}"
            raise NamesCollide(f"{both} would have one file of annotations. Export as `coco`.")
        first[stem.casefold()] = image["file_name"]
        yield image, stem, boxes[image["id"]]


def _corners(box: Mapping[str, Any]) -> Xyxy:
    left, top, right, bottom = to_xyxy(box["bbox"])
    right, bottom = box.get(FAR_CORNER, (right, bottom))
    return left, top, right, bottom


def _put(element: Element, **texts: object) -> None:
    for name, text in texts.items():
        if text is not None:
            SubElement(element, name).text = str(text)


def _put_readers(element: Element, entry: Mapping[str, Any]) -> None:
    for reader in entry.get("readers", ()):
        SubElement(element, "reader").text = reader
