"""Reads tables such as `train.csv` of VinBigData and those of VinDr-CXR.

Each row is a box that a reader drew, or states that a reader found nothing. In the table of 2020, each of 15,000 images
was read by three of 17 readers. `rad_id` can be absent, and one of `class_id` and `class_name`. `width` and `height`
are the size of the image that the boxes were drawn on. `table` has the spellings of columns, and `class_names` the
classes.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from shared.detector.card import Category
from trainer.datasets.annotations import (
    AnnotatedImage,
    Annotations,
    Box,
    MalformedAnnotations,
    Xyxy,
    is_printable,
    to_xyxy,
)
from trainer.datasets.class_names import NAME_OF_ID, is_normal, key_of, settle
from trainer.datasets.notes import Notes
from trainer.datasets.table import Row, Table, read_rows

_MAX_NAME_CHARACTERS = 200
_FEW_ROWS = 3
_EMPTY = frozenset({"", "nan", "none", "null", "na", "n/a", "<na>"})
#: Maximum coordinate of the placeholder box in a row of "No finding": the challenge's own `0 0 1 1`, also scaled down.
_FILLER_PX = 1


@dataclass(frozen=True)
class _Reading:
    """The content of one row."""

    line: int
    image_id: str
    name: str
    class_id: int | None
    reader: str
    #: None if nothing was found.
    box: Xyxy | None
    #: Width and height; None if the row does not state them.
    size_px: tuple[int, int] | None

    @property
    def origin(self) -> str:
        """Return the name of the row in notes."""
        return f"line {self.line}"


@dataclass
class _Image:
    """An image while its rows are read."""

    origin: str
    size_px: tuple[int, int] | None
    boxes: list[Box] = field(default_factory=list)
    #: By reader: whether this reader found something.
    found: dict[str, bool] = field(default_factory=dict)


class _OddRow(Exception):
    """The row cannot be used. It is left out, and the other rows are imported."""

    def __init__(self, code: str, why: str) -> None:
        super().__init__(why)
        self.code = code


def read_table(data: bytes) -> Annotations:
    """Read the bytes of a table, plain or compressed. Raises `MalformedAnnotations`.

    An invalid row is left out and noted with its line. If more than half of the rows are invalid, the table is rejected
    with the reason of the first one. Boxes that extend beyond the image are cut later, at the size of the file.
    """
    table, notes, odd = _known_readers(read_rows(data)), Notes(), _OddRows()
    readings = []
    for row in table.rows:
        try:
            readings.append(_read(row, table, notes))
        except _OddRow as error:
            odd.add(notes, f"line {row.line}", error)
    classes = settle((reading.line, reading.name, reading.class_id) for reading in readings)
    sizes = _sizes(readings)
    images: dict[str, _Image] = {}
    # Normal rows come last, so that a contradiction with a box does not depend on the order of the rows.
    for reading in sorted(readings, key=lambda reading: reading.box is None):
        try:
            _put(reading, classes, sizes.get(reading.image_id), images)
        except _OddRow as error:
            odd.add(notes, reading.origin, error)
    odd.refuse(len(table.rows), sum(len(image.boxes) for image in images.values()))
    found = {key: category for key, category in classes.items() if not is_normal(category.name)}
    return notes.onto(
        Annotations(
            categories=tuple(sorted(found.values(), key=lambda category: category.id)),
            images=tuple(
                _describe(image_id, images[image_id]) for image_id in _in_order(readings) if image_id in images
            ),
            noted={},
        )
    )


class _OddRows:
    """Counts the rows that were left out, so that a table with mostly invalid rows is rejected."""

    def __init__(self) -> None:
        self._count = 0
        self._first = ""

    def add(self, notes: Notes, origin: str, error: _OddRow) -> None:
        notes.add(error.code, origin)
        # A repeated row or a reader's contradiction is no sign of a wrong table.
        if error.code not in {"row_repeated", "normal_contradicts"}:
            self._count += 1
            self._first = self._first or f"{origin.capitalize()}: {error}"

    def refuse(self, rows: int, findings: int) -> None:
        """Raise if most rows are invalid, or if more than a few are and they outnumber the boxes."""
        if self._count > rows / 2 or self._count > max(_FEW_ROWS, findings):
            raise MalformedAnnotations(
                f"{self._first}. {self._count:,} of {rows:,} rows cannot be used; correct the table, or the names "
                "of its columns."
            )


def _known_readers(table: Table) -> Table:
    """Return the table without `rad_id` if no row has a value."""
    known = any(row.cells.get("rad_id", "").casefold() not in _EMPTY for row in table.rows if row.cells)
    return table if known else replace(table, columns=table.columns - {"rad_id"})


def _read(row: Row, table: Table, notes: Notes) -> _Reading:
    if row.cells is None:
        raise _OddRow("row_unreadable", "the row has another number of fields than the heading")
    image_id = row.cells["image_id"]
    reader = row.cells["rad_id"] if "rad_id" in table.columns else ""
    class_id = _class_id(row.cells.get("class_id", ""))
    name = row.cells.get("class_name", "")
    if name.casefold() in _EMPTY:
        name = NAME_OF_ID.get(-1 if class_id is None else class_id, "")
    if not name and class_id is not None and "class_name" not in table.columns:
        raise MalformedAnnotations(
            f"Line {row.line}: class {class_id} is none of VinBigData's 14 classes. Add a column class_name."
        )
    for column, text in (("image_id", image_id), ("class_name", name), ("rad_id", reader)):
        if text.casefold() in _EMPTY and (column != "rad_id" or "rad_id" in table.columns):
            raise _OddRow("row_unreadable", f"{column} is empty")
        if not is_printable(text) or len(text) > _MAX_NAME_CHARACTERS:
            raise _OddRow(
                "row_unreadable", f"{column} is longer than {_MAX_NAME_CHARACTERS} characters or not printable"
            )
    if is_normal(name):
        box = None
        if not _is_filler([row.cells[column] for column in table.box_columns]):
            notes.add("box_of_no_finding", f"line {row.line}")
    else:
        box = _box([row.cells[column] for column in table.box_columns], table.box_columns)
    return _Reading(
        row.line, image_id, name, class_id, reader, box, _size(row.cells.get("width"), row.cells.get("height"))
    )


def _sizes(readings: Sequence[_Reading]) -> dict[str, tuple[int, int]]:
    """Return the width and height that most rows of each image give; if equal, those of the first row."""
    votes: defaultdict[str, Counter[tuple[int, int]]] = defaultdict(Counter)
    for reading in readings:
        if reading.size_px is not None:
            votes[reading.image_id][reading.size_px] += 1
    return {image_id: counts.most_common(1)[0][0] for image_id, counts in votes.items()}


def _put(
    reading: _Reading, classes: dict[str, Category], size_px: tuple[int, int] | None, images: dict[str, _Image]
) -> None:
    """Add a row to its image, whose width and height are `size_px`."""
    category = classes.get(key_of(reading.name))
    if category is None or reading.class_id not in (None, category.id):
        raise _OddRow(
            "class_contradicts",
            f"class_id {reading.class_id} and class_name {reading.name!r} belong to different classes",
        )
    image = images.get(reading.image_id, _Image(reading.origin, size_px))
    if reading.size_px not in (None, size_px):
        raise _OddRow("size_contradicts", "width and height are not those of the other rows of this image")
    reader, readers = reading.reader, (reading.reader,) if reading.reader else ()
    if reading.box is not None:
        box = Box(category.id, reading.box, readers, reading.origin)
        if box in image.boxes:
            raise _OddRow("row_repeated", "the row repeats an earlier one")
        image.boxes.append(box)
        image.found[reader] = True
    elif reader and reader in image.found:
        code = "normal_contradicts" if image.found[reader] else "row_repeated"
        raise _OddRow(code, "the reader calls this image normal more than once, or has drawn a box on it")
    else:
        image.found.setdefault(reader, False)
    images[reading.image_id] = image


def _describe(image_id: str, image: _Image) -> AnnotatedImage:
    width, height = image.size_px or (None, None)
    readers = tuple(sorted(reader for reader in image.found if reader))
    return AnnotatedImage(
        file_name=image_id,
        boxes=tuple(image.boxes),
        readers=readers,
        height_px=height,
        width_px=width,
        scales=True,
        origin=image.origin,
    )


def _in_order(readings: Sequence[_Reading]) -> list[str]:
    return list(dict.fromkeys(reading.image_id for reading in readings))


def _class_id(text: str) -> int | None:
    """Parse a whole number; tools also write it as `3.0`."""
    if text.casefold() in _EMPTY:
        return None
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not number.is_integer() or not 0 <= number < 2**31:
        raise _OddRow("row_unreadable", f"class_id {text[:20]!r} is not a whole number from 0")
    return int(number)


def _is_filler(cells: Sequence[str]) -> bool:
    """Return whether the box of a row without a finding is a placeholder: empty, or the challenge's `0 0 1 1`."""
    if all(cell.casefold() in _EMPTY for cell in cells):
        return True
    try:
        return all(-1 <= float(cell) <= _FILLER_PX for cell in cells)
    except ValueError:
        return False


def _box(cells: Sequence[str], columns: Sequence[str]) -> Xyxy:
    try:
        left, top, right, bottom = map(float, cells)
    except ValueError:
        raise _OddRow("row_unreadable", f"{', '.join(columns)} must be numbers") from None
    if not all(map(math.isfinite, (left, top, right, bottom))):
        raise _OddRow("row_unreadable", f"{', '.join(columns)} must be numbers, and finite ones")
    if "box_width" in columns:
        left, top, right, bottom = to_xyxy((left, top, right, bottom))
    if left > right or top > bottom:
        raise _OddRow(
            "corners_swapped", "x_max is below x_min, or y_max below y_min (do these columns hold the size of the box)"
        )
    if left == right or top == bottom:
        raise _OddRow("box_without_area", "the box has no area")
    return left, top, right, bottom


def _size(width: str | None, height: str | None) -> tuple[int, int] | None:
    if width is None or height is None or {width.casefold(), height.casefold()} & _EMPTY:
        return None
    try:
        size = float(width), float(height)
    except ValueError:
        size = (math.nan, math.nan)
    if not all(side.is_integer() and 1 <= side < 2**31 for side in size):
        raise _OddRow("row_unreadable", "width and height must be whole numbers above 0, or empty")
    return int(size[0]), int(size[1])
