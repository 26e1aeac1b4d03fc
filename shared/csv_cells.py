"""Writes every CSV of Carina, so that a spreadsheet shows the cells and evaluates none of them.

A text cell that a spreadsheet could read as a formula gets an apostrophe in front. Numbers stay unchanged.
"""

import csv
import unicodedata
from collections.abc import Iterable
from itertools import dropwhile
from typing import IO

_FORMULA = "=+-@"
_MARK = "'"


class CsvWriter:
    """Writes rows whose text cells are escaped with `neutral`."""

    def __init__(self, file: IO[str], *, line_end: str = "\r\n") -> None:
        self._writer = csv.writer(file, lineterminator=line_end)

    def write(self, row: Iterable[object]) -> None:
        """Write one row; None is an empty cell."""
        self._writer.writerow([neutral(cell) if isinstance(cell, str) else cell for cell in row])

    def write_all(self, rows: Iterable[Iterable[object]]) -> None:
        """Write several rows."""
        for row in rows:
            self.write(row)


def neutral(text: str) -> str:
    """Escape a text so that its cell is not a formula. `plain` reverses it."""
    return _MARK + text if _may_be_formula(text) else text


def plain(cell: str) -> str:
    """Return the text of a cell, whether `neutral` has escaped it or not."""
    return cell[1:] if cell.startswith(_MARK) and _may_be_formula(cell[1:]) else cell


def _may_be_formula(text: str) -> bool:
    """Whether a spreadsheet may read a text as a formula, ignoring leading apostrophes."""
    text = text.lstrip(_MARK)
    if text[:1].isalnum():
        return False
    if text[:1] in {"\t", "\r", "\n"}:
        return True
    first = next(dropwhile(_is_passed_over, text), "")
    # Spreadsheets also accept full-width and small forms of the signs.
    return unicodedata.normalize("NFKC", first)[:1] in set(_FORMULA)


def _is_passed_over(character: str) -> bool:
    """Whether a spreadsheet ignores a character before the sign: spaces, control and format characters, apostrophes."""
    return character == _MARK or character.isspace() or unicodedata.category(character) in {"Cc", "Cf"}
