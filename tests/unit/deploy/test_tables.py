"""Tables fit their console and lose nothing."""

import re
from uuid import UUID

import pytest
from rich.console import Console

from deploy.cli.tables import Column, Table

IDS = [str(UUID(f"01a208a2-02e6-797b-8890-31f5283ee{number:03}")) for number in range(3)]
LONG = "A name of a model that is much longer than any column of a table can be, and-one-word-of-it-too"


def draw(table: Table, width: int, *, is_terminal: bool = True) -> str:
    console = Console(width=width, color_system=None, force_terminal=is_terminal)
    with console.capture() as captured:
        console.print(table)
    said = captured.get()
    assert max(map(len, said.splitlines())) <= width, said
    return said


def table_of(*names: str) -> Table:
    table = Table("id", "name", "state", *names, Column("images", justify="right"))
    for id_ in IDS:
        table.add_row(id_, LONG, "succeeded", *("2026-11-28 18:00" for _ in names), "1,234,567")
    return table


@pytest.mark.parametrize("width", [60, 80, 120, 200])
@pytest.mark.parametrize("columns", range(8))
def test_every_table_fits_and_says_all(width: int, columns: int) -> None:
    said = draw(table_of(*(f"column {number}" for number in range(columns))), width)
    letters = re.sub(r"[^\w-]", "", said)
    assert "succeeded" in said
    assert "1,234,567" in said
    assert "…" not in said
    if " │ " not in said and "┃" not in said:  # a list has each name on one line, or on the ones below
        assert re.sub(r"[^\w-]", "", LONG) in letters


def test_ids_are_whole_where_there_is_room_and_else_begin_alike_in_no_two_rows() -> None:
    assert all(id_ in draw(table_of(), 120) for id_ in IDS)
    table = Table("id", "name", "made", "until", "digest")
    for number, id_ in enumerate((IDS[0], "01a208a2-02e6-7f7b-8890-31f5283ee001")):
        table.add_row(id_, "name", "2026-11-28", "2026-11-28", f"{number:012}")
    said = draw(table, 72)
    assert "01a208a2-02e6-797b " in said, "eighteen characters tell the two apart"
    assert "01a208a2-02e6-7f7b " in said
    assert IDS[0] not in said
    assert IDS[0] in draw(table, 72, is_terminal=False), "another program is given whole ids"


def test_an_id_within_a_text_is_not_folded() -> None:
    table = Table("name", "next", "last")
    table.add_row("sundays", "2026-11-28 03:00 CET", f"Started by hand: run {IDS[0]}.")
    assert f"{IDS[0]}." in draw(table, 60)


def test_a_row_that_no_table_has_room_for_becomes_a_list_with_whole_ids() -> None:
    said = draw(table_of(*(f"column {number}" for number in range(7))), 60)
    assert all(re.search(rf"^id +{id_} *$", said, re.MULTILINE) for id_ in IDS)


def test_brackets_of_a_name_stay_brackets() -> None:
    table = Table("name")
    table.add_row(r"\[red] not red")
    assert "[red] not red" in draw(table, 60)
