"""Reads YOLO's label files: `class x y width height` in each line, the centre and the size as shares of the image's.

A label file belongs to the image of the same name; folders called `images` and `labels` are the same for this. An empty
file, or an image without a file, is a normal image. Outlines (a class and at least three points) become boxes.
"""

import math
from collections import defaultdict
from collections.abc import Mapping
from pathlib import PurePosixPath

from shared.detector.card import Category
from trainer.datasets.annotations import AnnotatedImage, Annotations, Box, ImplausibleBoxes, MalformedAnnotations, Xyxy
from trainer.datasets.class_list import read_classes
from trainer.datasets.class_names import is_normal
from trainer.datasets.label_files import read_all, split_of, stem_of, visible
from trainer.datasets.notes import Notes, Reasons
from trainer.datasets.places import SUFFIXES, Place
from trainer.datasets.text import read_text

#: Lists beside the labels that are no labels.
_LISTS = frozenset({"classes", "train", "val", "valid", "test", "readme", "requirements"})
_BOX_FIELDS, _LEAST_OUTLINE_FIELDS = 5, 7
#: Shares beyond this value are pixels; boxes at an edge can exceed 1 slightly.
_LARGEST_SHARE = 1.5


def read_yolo(labels: Place, images: Place) -> Annotations:
    """Read the labels of a place, for the images of another, which can be the same. Raises `MalformedAnnotations`.

    Unusable lines and files are left out and noted. If more than half of the lines are unusable, the labels are
    rejected with the first reason; if more than half of the boxes are no shares, with `ImplausibleBoxes`.
    """
    classes = read_classes(labels)
    if classes is None:
        raise MalformedAnnotations(
            "There is no list of classes. Name the folder that holds the labels and data.yaml or classes.txt."
        )
    pictures = _Pictures(images)
    reader = _Reader(classes)
    found: dict[str, AnnotatedImage] = {}
    origins: dict[str, str] = {}
    files = [name for name in visible(labels, ".txt") if pictures.find(name) or not _is_list(name)]
    if files and not any(map(pictures.find, files)):
        raise MalformedAnnotations(
            f"Not one of the {len(files):,} label files, as {files[0]}, has the name of an image."
        )
    if not files:
        raise MalformedAnnotations("There are no label files (.txt) in the folder of the labels.")
    for name, data in read_all(labels, files):
        file_name = pictures.find(name) or _key(name)
        if file_name in origins:
            raise MalformedAnnotations(f"{origins[file_name]} and {name} are labels of one image. Keep one of them.")
        origins[file_name] = name
        boxes = reader.read(name, data)
        if boxes is not None:
            split = split_of(name) or split_of(file_name)
            found[file_name] = AnnotatedImage(file_name, boxes, split=split, in_shares=True, origin=name)
    for file_name in pictures.names:
        if file_name not in origins:
            reader.notes.add("image_without_label_file", file_name)
            found[file_name] = AnnotatedImage(
                file_name, (), split=split_of(file_name), in_shares=True, origin=file_name
            )
    reader.refuse()
    categories = sorted(classes.values(), key=lambda category: category.id)
    kept = tuple(category for category in categories if not is_normal(category.name))
    return reader.notes.onto(Annotations(kept, tuple(found.values()), {}))


class _Pictures:
    """Finds the image of a label file."""

    def __init__(self, images: Place) -> None:
        every = visible(images)
        self._by_key: defaultdict[str, list[str]] = defaultdict(list)
        self._by_stem: defaultdict[str, list[str]] = defaultdict(list)
        for name in sorted(every, key=lambda name: SUFFIXES.index(suffix) if (suffix := _suffix(name)) else 0):
            if _suffix(name):
                self._by_key[_key(name)].append(name)
        for key, names in self._by_key.items():
            self._by_stem[PurePosixPath(key).name].append(names[0])
        #: One for each name without its suffix, as for a table of boxes.
        self.names = sorted(names[0] for names in self._by_key.values())
        self._without_suffix = {_key(name): name for name in every if PurePosixPath(name).suffix == ""}

    def find(self, label: str) -> str | None:
        """Return the image with the most folders in common, else the only one of this name."""
        parts = PurePosixPath(_key(label)).parts
        for start in range(len(parts)):
            key = "/".join(parts[start:])
            if key in self._by_key:
                return self._by_key[key][0]
            if key in self._without_suffix:
                return self._without_suffix[key]
        same = self._by_stem.get(parts[-1], [])
        return same[0] if len(same) == 1 else None


class _Reader:
    """Reads label files, and counts what is left out."""

    def __init__(self, classes: Mapping[int, Category]) -> None:
        self._classes = classes
        self.notes = Notes()
        self._reasons = Reasons()
        self._lines = self._boxes = self._in_pixels = 0

    def read(self, name: str, data: bytes) -> tuple[Box, ...] | None:
        """Return the boxes of a file; None if it cannot be read."""
        try:
            text = read_text(data)
        except MalformedAnnotations as error:
            self._lines += 1
            self._reasons.add(f"{name}: {error.detail}")
            self.notes.add("image_unreadable", name)
            return None
        boxes: list[Box] = []
        for number, line in enumerate(text.splitlines(), start=1):
            fields = line.split()
            if fields:
                self._lines += 1
                self._add(fields, f"{name} line {number}", boxes)
        return tuple(boxes)

    def refuse(self) -> None:
        """Raise if most lines are unusable, or most boxes are no shares."""
        self._reasons.refuse(self._lines)
        if self._in_pixels > self._boxes / 2:
            raise ImplausibleBoxes(
                f"{self._in_pixels:,} of {self._boxes:,} boxes are not shares of the image's size. Divide x and width "
                "by its width, y and height by its height."
            )

    def _add(self, fields: list[str], origin: str, boxes: list[Box]) -> None:
        numbers = _numbers(fields)
        if numbers is None:
            self._leave_out("annotation_unreadable", origin, "is not a class and a box or an outline in numbers")
            return
        place, corners = int(numbers[0]), _corners(numbers[1:])
        category = self._classes.get(place)
        if category is None:
            self._leave_out("class_unknown", origin, f"has class {place}, which is not in the list of classes")
        elif is_normal(category.name):
            self.notes.add("box_of_no_finding", origin)
        elif corners[0] >= corners[2] or corners[1] >= corners[3]:
            self._leave_out("box_without_area", origin, "has a box without an area")
        elif (box := Box(category.id, corners, (), origin)) in boxes:
            self.notes.add("row_repeated", origin)
        else:
            self._boxes += 1
            self._in_pixels += max(corners) > _LARGEST_SHARE
            boxes.append(box)

    def _leave_out(self, code: str, origin: str, why: str) -> None:
        self.notes.add(code, origin)
        self._reasons.add(f"{origin} {why}.")


def _key(name: str) -> str:
    """Return the name that an image and its label file have in common."""
    path = PurePosixPath(name)
    stem = str(path.with_suffix("")) if path.suffix == ".txt" else stem_of(name)
    return "/".join(part for part in PurePosixPath(stem).parts if part.casefold() not in {"images", "labels"})


def _suffix(name: str) -> str:
    suffix = PurePosixPath(name).suffix.lower()
    return suffix if suffix in SUFFIXES else ""


def _is_list(name: str) -> bool:
    return PurePosixPath(name).stem.casefold() in _LISTS


def _numbers(fields: list[str]) -> list[float] | None:
    try:
        numbers = [float(field) for field in fields]
    except ValueError:
        return None
    is_outline = len(numbers) >= _LEAST_OUTLINE_FIELDS and len(numbers) % 2
    if not all(map(math.isfinite, numbers)) or not numbers[0].is_integer():
        return None
    return numbers if len(numbers) == _BOX_FIELDS or is_outline else None


def _corners(numbers: list[float]) -> Xyxy:
    if len(numbers) == _BOX_FIELDS - 1:
        x, y, width, height = numbers
        return x - width / 2, y - height / 2, x + width / 2, y + height / 2
    xs, ys = numbers[::2], numbers[1::2]
    return min(xs), min(ys), max(xs), max(ys)
