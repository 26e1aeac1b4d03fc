"""VinBigData's table: `image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max`, read and written.

Each row is a box that a reader drew, or says that a reader found nothing (class 14, without a box). In 2020's table
three of 17 readers have read each of 15,000 images.
"""

import csv
import gzip
import io
import math
import zlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from shared.csv_cells import CsvWriter, plain_row
from shared.detector.card import Category
from trainer.datasets.annotations import AnnotatedImage, Annotations, Box, MalformedAnnotations, Xyxy

COLUMNS = ("image_id", "class_name", "class_id", "rad_id", "x_min", "y_min", "x_max", "y_max")
NO_FINDING_ID, NO_FINDING = 14, "No finding"

_CORNERS = COLUMNS[4:]
_GZIP = b"\x1f\x8b"


@dataclass
class _Reading:
    """An image while its rows come in."""

    boxes: list[Box] = field(default_factory=list)
    #: By reader: whether they found something.
    found: dict[str, bool] = field(default_factory=dict)


def read_table(data: bytes) -> Annotations:
    """Read the table's bytes, plain or gzipped; raises `MalformedAnnotations` with the line's number."""
    readings: defaultdict[str, _Reading] = defaultdict(_Reading)
    names: dict[int, str] = {}
    for line, row in _rows(data):
        image_id, name, reader = row["image_id"].strip(), row["class_name"].strip(), row["rad_id"].strip()
        if not image_id or not name or not reader:
            raise _malformed(line, "image_id, class_name and rad_id must not be empty")
        class_id = _class_id(line, row["class_id"])
        if (class_id == NO_FINDING_ID) != (name == NO_FINDING):
            raise _malformed(line, f"class {NO_FINDING_ID}, and no other, must be called {NO_FINDING!r}")
        if names.setdefault(class_id, name) != name:
            raise _malformed(line, f"class {class_id} is called {names[class_id]!r} further up and {name!r} here")
        box = _box(line, row, class_id)
        reading = readings[image_id]
        if reader in reading.found and (box is None or not reading.found[reader]):
            raise _malformed(line, "the reader calls this image normal more than once, or in one row only")
        reading.found[reader] = box is not None
        if box is not None:
            reading.boxes.append(Box(class_id, box, (reader,)))
    names.pop(NO_FINDING_ID, None)
    if len(set(names.values())) < len(names):
        raise MalformedAnnotations("Two classes have the same name.")
    return Annotations(
        categories=tuple(Category(id=class_id, name=names[class_id]) for class_id in sorted(names)),
        images=tuple(
            AnnotatedImage(image_id, tuple(reading.boxes), tuple(sorted(reading.found)))
            for image_id, reading in readings.items()
        ),
        noted={},
    )


def write_table(annotations: Annotations) -> str:
    """Write unfused annotations as the table that they can be read from; raises `MalformedAnnotations` for others."""
    names = {category.id: category.name for category in annotations.categories}
    text = io.StringIO()
    writer = CsvWriter(text, line_end="\n")
    writer.write(COLUMNS)
    for image in annotations.images:
        finders = set()
        for box in image.boxes:
            if len(box.readers) != 1:
                raise MalformedAnnotations("A row of the table has one reader: only unfused boxes can be written.")
            finders.add(box.readers[0])
            writer.write((image.file_name, names[box.category_id], box.category_id, *box.readers, *box.xyxy_px))
        for reader in image.readers:
            if reader not in finders:
                writer.write((image.file_name, NO_FINDING, NO_FINDING_ID, reader, "", "", "", ""))
    return text.getvalue()


def _rows(data: bytes) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield each row with the number of its line."""
    try:
        text = (gzip.decompress(data) if data.startswith(_GZIP) else data).decode("utf-8-sig")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as exc:
        raise MalformedAnnotations("The table is no CSV file in UTF-8, nor one that was gzipped.") from exc
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        missing = [column for column in COLUMNS if column not in (reader.fieldnames or ())]
        if missing:
            raise _malformed(1, f"the heading lacks {', '.join(missing)}")
        for row in reader:
            if None in row or None in row.values():
                raise _malformed(reader.line_num, "the row has another number of fields than the heading")
            yield reader.line_num, plain_row(row)
    except csv.Error as exc:
        raise _malformed(reader.reader.line_num, str(exc)) from exc


def _class_id(line: int, text: str) -> int:
    try:
        class_id = int(text)
    except ValueError:
        raise _malformed(line, "class_id must be a whole number") from None
    if class_id < 0:
        raise _malformed(line, "class_id must not be negative")
    return class_id


def _box(line: int, row: dict[str, str], class_id: int) -> Xyxy | None:
    corners = [row[column].strip() for column in _CORNERS]
    if class_id == NO_FINDING_ID:
        if any(corners):
            raise _malformed(line, f"a row of class {NO_FINDING_ID} ({NO_FINDING}) must have no box")
        return None
    try:
        left, top, right, bottom = map(float, corners)
    except ValueError:
        raise _malformed(line, f"{', '.join(_CORNERS)} must be numbers") from None
    if not all(map(math.isfinite, (left, top, right, bottom))):
        raise _malformed(line, f"{', '.join(_CORNERS)} must be finite")
    if left >= right or top >= bottom or left < 0 or top < 0:
        raise _malformed(line, "the box must have an area, and no negative corner")
    return left, top, right, bottom


def _malformed(line: int, why: str) -> MalformedAnnotations:
    return MalformedAnnotations(f"Line {line}: {why}.")
