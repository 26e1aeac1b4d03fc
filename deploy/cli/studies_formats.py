"""Studies as a table for people, and as JSON and CSV for other programs."""

from collections.abc import Iterable
from typing import IO

from rich.console import Console
from rich.markup import escape

from api.schemas import NOTICE
from api.study_list_schemas import StudySummary
from deploy.cli.console import PIPED_WIDTH, out
from deploy.cli.tables import Column, Table
from shared.csv_cells import CsvWriter

CSV_COLUMNS = (
    "study_id",
    "study_instance_uid",
    "created_at",
    "image_count",
    "state",
    "codes",
    "priority",
    "flags",
    "findings",
    "review",
)
#: Findings that a table shows of a study.
_SHOWN = 3
_REVIEW = {None: (), "begun": ("review begun",), "done": ("reviewed",)}


def write_table(studies: Iterable[StudySummary], file: IO[str] | None) -> None:
    """Write a row for each study; without a file on standard output."""
    folded = (Column(name, overflow="fold") for name in ("state", "findings", "flags"))
    table = Table(Column("study", no_wrap=True), Column("received", no_wrap=True), "priority", *folded)
    for study in studies:
        table.add_row(
            str(study.id),
            f"{study.created_at:%Y-%m-%d\n%H:%M}",
            str(study.priority),
            "\n".join([*_states(study), *_REVIEW[study.review], *(problem.code for problem in study.problems)]),
            escape("\n".join(_findings(study))),
            "\n".join(study.flags),
        )
    console = out if file is None else Console(file=file, width=PIPED_WIDTH)
    console.print(table)
    console.print(f"[dim]{NOTICE}[/]")


def _states(study: StudySummary) -> list[str]:
    """As `succeeded`, or of several images `2 succeeded` and `1 rejected`."""
    if study.image_count == 1:
        return [study.state]
    return [f"{count} {state}" for state, count in study.states.items()]


def _findings(study: StudySummary) -> list[str]:
    shown = [f"{each.class_name} {each.score:.2f}" for each in study.findings[:_SHOWN]]
    more = len(study.findings) - _SHOWN
    return [*shown, f"and {more} more"] if more > 0 else shown


def write_json(studies: Iterable[StudySummary], file: IO[str]) -> None:
    """Write an array of studies as `GET /v1/studies` has them."""
    file.write("[")
    for number, study in enumerate(studies):
        file.write((",\n" if number else "\n") + study.model_dump_json())
    file.write("\n]\n")


def write_jsonl(studies: Iterable[StudySummary], file: IO[str]) -> None:
    """Write each study on a line of its own."""
    file.writelines(study.model_dump_json() + "\n" for study in studies)


def write_csv(studies: Iterable[StudySummary], file: IO[str]) -> None:
    """Write a row for each study; its findings as `class score`, joined by semicolons, the highest score first."""
    writer = CsvWriter(file)
    writer.write(CSV_COLUMNS)
    for study in studies:
        writer.write(
            (
                study.id,
                study.study_instance_uid,
                study.created_at.isoformat(),
                study.image_count,
                study.state,
                " ".join(problem.code for problem in study.problems),
                study.priority,
                " ".join(study.flags),
                "; ".join(f"{each.class_name} {each.score}" for each in study.findings),
                study.review or "",
            )
        )
