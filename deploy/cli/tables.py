"""Tables that fit the terminal: ids are shortened, long words are wrapped, narrow terminals get lists.

Where a table does not fit a terminal with whole ids, each is cut to a beginning that tells it from the others of its
column, and which every command takes in place of the id. Where it does not fit even so, each row becomes a list. What
goes into a file or another program is a list as soon as a cell would have to be folded.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pydantic import BaseModel
from rich.console import Console, ConsoleOptions, RenderResult
from rich.markup import escape
from rich.table import Column
from rich.table import Table as RichTable
from rich.text import Text

from deploy.cli.console import is_json, out, print_json

__all__ = ["ANY_FINDING", "Column", "Table", "print_answer", "print_list", "probability"]

#: The column with the probability that an image shows any finding.
ANY_FINDING = "any finding"

#: A longer word may be folded.
_MAX_WORD_CHARACTERS = 16
#: The beginnings of an id that may stand for it; the first holds the millisecond in which the id was made.
_BEGINNINGS = (13, 18, 23, 36)
_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
#: Of the names in a list.
_MAX_NAME_CHARACTERS = 18


@dataclass(frozen=True)
class _Cells:
    """The cells of a column, beginning with the header."""

    texts: Sequence[Text]
    #: The least width, and the one at which nothing is folded.
    least: int
    most: int


class Table(RichTable):
    """A table that fits the width of its console."""

    def drop_if_empty(self, header: str) -> None:
        """Remove a column if all its cells are empty."""
        self.columns = [column for column in self.columns if column.header != header or any(column.cells)]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for is_short in (False, True) if console.is_terminal else (False,):
            columns = [self._read(console, column, is_short=is_short) for column in self.columns]
            room = options.max_width - 3 * len(columns) - 1
            # Another program is given whole ids and lines.
            if sum(column.least if console.is_terminal else column.most for column in columns) <= room:
                yield self._fitted(columns, _share(columns, room))
                return
        yield self._listed([self._read(console, column, is_short=False) for column in self.columns], options.max_width)

    def _read(self, console: Console, column: Column, *, is_short: bool) -> _Cells:
        header = _text(console, column.header)
        texts = [_text(console, cell) for cell in column.cells]
        ids = {text.plain for text in texts if text.plain}
        is_id = bool(ids) and all(_ID.fullmatch(each) for each in ids)
        if is_id and is_short:
            length = next(length for length in _BEGINNINGS if len({each[:length] for each in ids}) == len(ids))
            texts = [text[:length] for text in texts]
        lines = [line.cell_len for text in (header, *texts) for line in text.split()]
        words = [Text(word).cell_len for text in (header, *texts) for word in text.plain.split()]
        most = max(lines, default=0)
        ids_in_text = max((len(word) for text in texts for word in text.plain.split() if _ID.search(word)), default=0)
        whole = max((text.cell_len for text in texts), default=0) if is_id else ids_in_text
        return _Cells([header, *texts], max(whole, min(_MAX_WORD_CHARACTERS, max(words, default=1))), most)

    def _fitted(self, columns: Sequence[_Cells], widths: Sequence[int]) -> RichTable:
        table = RichTable(title=self.title)
        for column, cells, width in zip(self.columns, columns, widths, strict=True):
            table.add_column(cells.texts[0], width=width, justify=column.justify, overflow="fold")
        for number, row in enumerate(self.rows, 1):
            table.add_row(*(cells.texts[number] for cells in columns), end_section=row.end_section)
        return table

    def _listed(self, columns: Sequence[_Cells], width: int) -> RichTable:
        names = min(_MAX_NAME_CHARACTERS, max(cells.texts[0].cell_len for cells in columns))
        table = RichTable.grid(padding=(0, 2, 0, 0))
        table.title = self.title
        table.add_column(width=names, overflow="fold", style="bold")
        table.add_column(width=max(1, width - names - 2), overflow="fold")
        for number in range(1, len(self.rows) + 1):
            for cells in columns:
                if cells.texts[number].plain:
                    table.add_row(cells.texts[0], cells.texts[number])
            table.add_row("", "")
        return table


def print_list(answers: Sequence[object], columns: Iterable[str | Column], rows: Iterable[Sequence[object]]) -> None:
    """Print answers of the API: as JSON, or as a table with a row of plain text for each."""
    if is_json():
        print_json(answers)
        return
    table = Table(*columns)
    for row in rows:
        table.add_row(*(Text("" if cell is None else str(cell)) for cell in row))
    out.print(table)


def probability(value: float | None) -> str:
    """Format a probability; empty if there is none."""
    return "" if value is None else f"{value:.2f}"


def print_answer(answer: BaseModel, title: str) -> None:
    """Print one answer of the API: as JSON, or as a table with a row for each field."""
    if is_json():
        print_json(answer)
        return
    table = Table("", escape(title))
    for name, value in answer.model_dump(mode="json").items():
        if isinstance(value, dict):
            value = ", ".join(f"{inner}={each}" for inner, each in value.items())
        table.add_row(name, Text("" if value is None else str(value)))
    out.print(table)


def _text(console: Console, cell: object) -> Text:
    return cell if isinstance(cell, Text) else console.render_str(str(cell))


def _share(columns: Sequence[_Cells], room: int) -> list[int]:
    """Give each column the width that it needs; where that is too much, take from the widest, never below the least."""
    widths = [max(column.least, column.most) for column in columns]
    while sum(widths) > room:
        number = max(
            (number for number, column in enumerate(columns) if widths[number] > column.least),
            key=widths.__getitem__,
        )
        widths[number] -= 1
    return widths
