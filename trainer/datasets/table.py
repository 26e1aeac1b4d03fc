"""Reads a table of boxes in CSV, as spreadsheets and Kaggle users write it: its separator, its heading and its rows."""

import csv
import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from shared.csv_cells import plain
from trainer.datasets.annotations import MalformedAnnotations
from trainer.datasets.text import read_text

#: Columns by the names in published tables, in lower case with underscores.
_NAMES = {
    "image_id": ("image_id", "imageid", "image", "image_name", "image_file", "file_name", "filename", "patientid"),
    "class_name": ("class_name", "classname", "class", "label", "finding", "category", "finding_name"),
    "class_id": ("class_id", "classid", "category_id", "label_id"),
    "rad_id": ("rad_id", "radid", "reader", "reader_id", "rater", "radiologist", "annotator"),
    "x_min": ("x_min", "xmin", "x1", "left", "x", "bbox_x", "box_x"),
    "y_min": ("y_min", "ymin", "y1", "top", "y", "bbox_y", "box_y"),
    "x_max": ("x_max", "xmax", "x2", "right"),
    "y_max": ("y_max", "ymax", "y2", "bottom"),
    "box_width": ("box_width", "bbox_width", "bbox_w", "box_w", "w"),
    "box_height": ("box_height", "bbox_height", "bbox_h", "box_h", "h"),
    # Resized sets give the size of the original. `dim0` and `dim1` are those of the array: height first.
    "width": (
        "width",
        "image_width",
        "img_width",
        "orig_width",
        "original_width",
        "width_px",
        "dim1",
        "columns",
        "cols",
    ),
    "height": ("height", "image_height", "img_height", "orig_height", "original_height", "height_px", "dim0", "rows"),
}
_COLUMN_OF = {name: column for column, names in _NAMES.items() for name in names}
_CORNERS, _SIZES = ("x_min", "y_min", "x_max", "y_max"), ("x_min", "y_min", "box_width", "box_height")
_NEEDED = ("image_id", *_CORNERS)
_WORDS = {"image_id", "class_name", "class_id", "rad_id"}
_NUMBERS = {*_CORNERS, *_SIZES, "width", "height", "class_id"}
_SEPARATORS = ",;\t|"
#: Excel writes this line above a heading, and reads it.
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?\r?\n', re.IGNORECASE)


@dataclass(frozen=True)
class Row:
    """A row; `cells` is None if the number of fields differs from the heading."""

    line: int
    #: By column, without surrounding white space.
    cells: Mapping[str, str] | None


@dataclass(frozen=True)
class Table:
    """The columns of a table by Carina's names, and its rows."""

    columns: frozenset[str]
    rows: tuple[Row, ...]

    @property
    def box_columns(self) -> tuple[str, ...]:
        """Return the columns of a box: its corners, or one corner and its size."""
        return _CORNERS if "x_max" in self.columns else _SIZES


def read_rows(data: bytes) -> Table:
    """Read the bytes of a table. Decimal commas become points. Raises `MalformedAnnotations`."""
    text = read_text(data)
    first_line, separator = 1, None
    if said := _SEPARATOR_LINE.match(text):
        text, first_line, separator = text[said.end() :], 2, said[1]
    heading = text.lstrip().partition("\n")[0]
    separator = separator or max(_SEPARATORS, key=heading.count)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=separator, skipinitialspace=True)
    try:
        columns = _columns(next((fields for fields in reader if any(map(str.strip, fields))), []))
        rows = tuple(_rows(reader, columns, first_line - 1, decimal_comma=separator != ","))
    except csv.Error as exc:
        line = reader.line_num + first_line - 1
        raise MalformedAnnotations(f"Line {line}: {exc}. Mend the quotes of this line or of one above it.") from exc
    if not rows:
        raise MalformedAnnotations("The table has no rows below its heading.")
    return Table(frozenset(filter(None, columns)), rows)


def _columns(heading: list[str]) -> list[str | None]:
    """Return Carina's name of each column; None for a column that is not used."""
    names = [re.sub(r"\W+", "_", name.strip().casefold()).strip("_") for name in heading]
    columns: list[str | None] = [_COLUMN_OF.get(name) for name in names]
    # If a column has exactly Carina's name, a column with another spelling holds something else and is ignored. This
    # does not apply to boxes and sizes: two of them can be in different pixels, so `_check` rejects the table.
    own = {*names} & _WORDS
    paired = zip(names, columns, strict=True)
    columns = [None if column in own and name != column else column for name, column in paired]
    if not {"x_max", "y_max", "box_width", "box_height"} & {*columns}:
        # The sizes are those of the boxes.
        of_box = {"width": "box_width", "height": "box_height"}
        columns = [of_box.get(name, column) for name, column in zip(names, columns, strict=True)]
    _check(columns)
    return columns


def _check(columns: list[str | None]) -> None:
    needed = ("image_id", *_SIZES) if {"box_width", "box_height"} & {*columns} and "x_max" not in columns else _NEEDED
    missing = [column for column in needed if column not in columns]
    if "class_name" not in columns and "class_id" not in columns:
        missing.append("class_name")
    if ("width" in columns) != ("height" in columns):
        missing.append("height" if "width" in columns else "width")
    if missing:
        raise MalformedAnnotations(
            f"Line 1: the heading lacks {', '.join(missing)}. A table has the columns image_id, class_name, x_min, "
            "y_min, x_max and y_max, and may have class_id, rad_id, width and height."
        )
    for column in {*columns} - {None}:
        if columns.count(column) > 1:
            raise MalformedAnnotations(f"Line 1: two columns of the heading are a {column}. Rename or remove one.")


def _rows(
    reader: Iterator[list[str]], columns: list[str | None], lines_above: int, *, decimal_comma: bool
) -> Iterator[Row]:
    for fields in reader:
        if not any(field.strip() for field in fields):
            continue
        line = reader.line_num + lines_above  # type: ignore[attr-defined]
        while len(fields) > len(columns) and not fields[-1].strip():
            fields.pop()  # an empty field after a separator at the end of the line
        if len(fields) != len(columns):
            yield Row(line, None)
            continue
        cells = {column: plain(field).strip() for column, field in zip(columns, fields, strict=True) if column}
        if decimal_comma:
            cells |= {column: cells[column].replace(",", ".") for column in _NUMBERS & cells.keys()}
        yield Row(line, cells)
