"""Reads Pascal VOC's XML files, one for each image: boxes by 1-based pixels, both corners inclusive.

The box of the first pixel is `1 1 1 1`, so that x from 0 (the edge of the image) to 1 is `xmin` 1 and `xmax` 1. In
addition to VOC, `<annotation>` can have `<patient>` and `<reader>`, and `<object>` `<reader>` and `<probability>`, as
in the files that Carina exports.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Context, Decimal, InvalidOperation
from pathlib import PurePosixPath, PureWindowsPath
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from shared.detector.card import Category
from shared.errors import PermanentError
from shared.training.config import Split
from trainer.datasets.annotations import (
    PROBABILITY,
    AnnotatedImage,
    Annotations,
    Box,
    MalformedAnnotations,
    Xyxy,
    is_printable,
    pseudonym,
)
from trainer.datasets.class_list import read_classes
from trainer.datasets.class_names import is_normal, key_of, settle
from trainer.datasets.label_files import read_all, stem_of, visible
from trainer.datasets.notes import Notes, Reasons
from trainer.datasets.places import Catalogue, Place
from trainer.datasets.splits import SPLITS
from trainer.datasets.text import read_text

#: More digits than a coordinate needs, so that its difference from 1 is exact.
_EXACT = Context(prec=60)
_MAX_NAME_CHARACTERS, _MAX_FILE_NAME_CHARACTERS = 200, 1000
_SIDES = ("xmin", "ymin", "xmax", "ymax")
#: Extends beyond every image; a larger coordinate is no pixel.
_LARGEST_PX = 2**31


class _OddObject(Exception):
    """The object cannot be used. It is left out, and the others are imported."""

    def __init__(self, code: str, why: str) -> None:
        super().__init__(why)
        self.code = code


@dataclass(frozen=True)
class _File:
    """One XML file."""

    name: str
    #: Of its image.
    file_name: str
    root: Element

    @property
    def objects(self) -> list[tuple[str, Element]]:
        """Return the objects with their names for notes."""
        return [(f"{self.name} object {n}", entry) for n, entry in enumerate(self.root.findall("object"), start=1)]


def read_voc(place: Place, images: Place) -> Annotations:
    """Read the files of a place, for the images of another. Raises `MalformedAnnotations`.

    The classes are those of `data.yaml` or `classes.txt`, if there is one, otherwise the names of the objects. Unusable
    objects and files are left out and noted. If more than half of them are unusable, the files are rejected with the
    first reason.
    """
    notes, reasons = Notes(), Reasons()
    files = _files(place, images, notes, reasons)
    listed = read_classes(place)
    classes = _classes(files, listed)
    splits = _splits(place)
    described = [_describe(file, _boxes(file, classes, notes, reasons), splits) for file in files]
    unreadable = len(visible(place, ".xml")) - len(files)
    reasons.refuse(unreadable + sum(len(file.objects) for file in files))
    kept = sorted((each for each in classes.values() if not is_normal(each.name)), key=lambda category: category.id)
    return notes.onto(Annotations(tuple(kept), tuple(described), {}))


def _files(place: Place, images: Place, notes: Notes, reasons: Reasons) -> list[_File]:
    """Read the files, and note those that cannot be read."""
    catalogue = Catalogue(images)
    names = visible(place, ".xml")
    if not names:
        raise MalformedAnnotations("There are no XML files in the folder of the annotations.")
    files: dict[str, _File] = {}
    contents: dict[str, bytes] = {}
    for name, data in read_all(place, names):
        try:
            root = _parse(data)
            file = _File(name, _file_name(root, name, catalogue), root)
        except ValueError as exc:
            notes.add("image_unreadable", name)
            reasons.add(f"{name}: {exc}.")
            continue
        stem = stem_of(file.file_name)
        first = files.setdefault(stem, file)
        if contents.setdefault(stem, data) != data:
            raise MalformedAnnotations(f"{first.name} and {name} annotate the same image. Keep one of them.")
        if first is not file:
            notes.add("row_repeated", name)
    return list(files.values())


def _boxes(file: _File, classes: Mapping[str, Category], notes: Notes, reasons: Reasons) -> list[Box]:
    """Return the boxes of a file, and note the objects that are left out."""
    boxes: list[Box] = []
    for origin, entry in file.objects:
        try:
            box = _box(entry, classes, origin)
        except _OddObject as odd:
            notes.add(odd.code, origin)
            reasons.add(f"{origin} {odd}.", counts=odd.code not in {"difficult_object", "box_of_no_finding"})
            continue
        if box in boxes:
            notes.add("row_repeated", origin)
        else:
            boxes.append(box)
    return boxes


def _parse(data: bytes) -> Element:
    """Parse a file. Document types are refused, since their entities can grow without limit or name other files."""
    builder = TreeBuilder()
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = _refuse
    try:
        parser.Parse(data.lstrip(), True)
        root = builder.close()
    except (expat.ExpatError, LookupError, AssertionError) as exc:
        raise ValueError(f"the file is not valid XML ({exc})") from exc
    if root.tag != "annotation":
        raise ValueError(f"its first element is <{root.tag:.40}>, not <annotation>")
    return root


def _refuse(*_: object) -> None:
    raise ValueError("it has a document type (<!DOCTYPE>). Remove it")


def _file_name(root: Element, name: str, catalogue: Catalogue) -> str:
    """Return the name of the image: `filename`, without folders that do not exist here, else the name of the file."""
    text = (root.findtext("filename") or "").strip()
    path = PureWindowsPath(text) if "\\" in text or PureWindowsPath(text).drive else PurePosixPath(text)
    text = path.as_posix()
    try:
        catalogue.find(text)
    except PermanentError:
        text = path.name
    if text in {"", "."}:
        text = PurePosixPath(name).stem
    if len(text) > _MAX_FILE_NAME_CHARACTERS or not is_printable(text):
        raise ValueError("the filename is too long or not printable")
    return text


def _classes(files: Sequence[_File], listed: Mapping[int, Category] | None) -> dict[str, Category]:
    """Return the classes by the keys of their names."""
    if listed is not None:
        return {key_of(category.name): category for category in listed.values()}
    objects = (entry for file in files for _, entry in file.objects)
    names = ((entry.findtext("name") or "").strip() for entry in objects)
    return settle((0, name, None) for name in names if _is_name(name))


def _splits(place: Place) -> dict[str, Split]:
    """Return the splits in `ImageSets/Main`, by the image's name without its suffix."""
    splits: dict[str, Split] = {}
    names = {"/".join(PurePosixPath(name).parts[-3:]): name for name in visible(place, ".txt")}
    for split in SPLITS:
        name = names.get(f"ImageSets/Main/{split}.txt")
        for line in read_text(place.read(name)).splitlines() if name else ():
            if line.strip():
                splits[stem_of(line.strip())] = split
    return splits


def _box(entry: Element, classes: Mapping[str, Category], origin: str) -> Box:
    name = (entry.findtext("name") or "").strip()
    if not _is_name(name):
        raise _OddObject("annotation_unreadable", "has no name that can be used")
    category = classes.get(key_of(name))
    if category is None:
        raise _OddObject("class_unknown", f"has class {name!r:.80}, which is not in the list of classes")
    if is_normal(category.name):
        raise _OddObject("box_of_no_finding", "is of no finding")
    if (entry.findtext("difficult") or "0").strip() not in {"0", "false"}:
        raise _OddObject("difficult_object", "is difficult")
    left, top, right, bottom = corners = _corners(entry)
    if left > right or top > bottom:
        raise _OddObject("corners_swapped", "has xmax below xmin, or ymax below ymin")
    if left == right or top == bottom:
        raise _OddObject("box_without_area", "has a box without an area")
    return Box(category.id, corners, _readers(entry), origin, _probability(entry))


def _corners(entry: Element) -> Xyxy:
    try:
        sides = [Decimal((entry.findtext(f"bndbox/{side}") or "").strip()) for side in _SIDES]
    except InvalidOperation:
        sides = []
    if not sides or not all(side.is_finite() and abs(side) < _LARGEST_PX for side in sides):
        raise _OddObject("annotation_unreadable", f"needs a bndbox with {', '.join(_SIDES)} as numbers")
    left, top = (float(_EXACT.subtract(side, Decimal(1))) for side in sides[:2])
    return left, top, float(sides[2]), float(sides[3])


def _describe(file: _File, boxes: list[Box], splits: Mapping[str, Split]) -> AnnotatedImage:
    root = file.root
    width_px, height_px = _side(root, "width"), _side(root, "height")
    is_known = width_px is not None and height_px is not None
    patient = (root.findtext("patient") or "").strip()
    return AnnotatedImage(
        file_name=file.file_name,
        boxes=tuple(boxes),
        readers=tuple(sorted({*_readers(root), *(reader for box in boxes for reader in box.readers)})),
        patient=pseudonym(patient) if patient else None,
        split=splits.get(stem_of(file.file_name)) or splits.get(PurePosixPath(file.name).stem),
        height_px=height_px if is_known else None,
        width_px=width_px if is_known else None,
        origin=file.name,
    )


def _side(root: Element, name: str) -> int | None:
    """Return a side of `size`; None if it is missing, or 0 as tools write it for an unknown size."""
    try:
        side = float(root.findtext(f"size/{name}") or "nan")
    except ValueError:
        return None
    return int(side) if math.isfinite(side) and side.is_integer() and 0 < side < _LARGEST_PX else None


def _probability(element: Element) -> float | None:
    try:
        value = float(element.findtext(PROBABILITY, ""))
    except ValueError:
        return None
    return value if 0 <= value <= 1 else None


def _readers(element: Element) -> tuple[str, ...]:
    names = {(reader.text or "").strip() for reader in element.findall("reader")}
    return tuple(sorted(name for name in names if _is_name(name)))


def _is_name(name: str) -> bool:
    return bool(name) and len(name) <= _MAX_NAME_CHARACTERS and is_printable(name)
