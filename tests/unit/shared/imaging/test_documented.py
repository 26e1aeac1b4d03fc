"""`docs/dicom.md` and `docs/imaging.md` list the same syntaxes, flags and modules as the code."""

import re

from shared.imaging.facts import SpacingSource
from shared.imaging.transfer_syntaxes import PACKINGS
from shared.vocabulary.flags import Flag
from tests.requirements import REPOSITORY

ROOT = "1.2.840.10008.1.2"
DOCS = REPOSITORY / "docs"
DICOM = (DOCS / "dicom.md").read_text()
TEXT = (DOCS / "imaging.md").read_text()


def first_cells(text: str, heading: str) -> list[str]:
    """What stands first in each row of the tables under a heading."""
    section = text.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return re.findall(r"^\| (\S+) \|", section, re.MULTILINE)


def test_every_transfer_syntax_is_listed() -> None:
    listed = [ROOT + cell.strip("`").replace("(itself)", "") for cell in first_cells(DICOM, "Transfer syntaxes")[1:]]
    assert {uid for uid in listed if not uid.endswith("---")} == set(PACKINGS)


def test_every_flag_and_every_source_of_a_spacing_is_listed() -> None:
    assert {cell.strip("`") for cell in first_cells(TEXT, "Flags")} >= set(Flag)
    assert all(f"`{source}`" in TEXT for source in SpacingSource)


def test_every_module_that_is_named_is_there() -> None:
    table = TEXT.split("| module |")[1].split("\n\n")[0]
    folder = REPOSITORY / "shared/imaging"
    names = set(re.findall(r"`([a-z_0-9]+)/?`", table)) - {"make_rendition"}
    assert names == {path.stem for path in folder.glob("*.py") if path.stem != "__init__"} | {"chest_classifier"}
