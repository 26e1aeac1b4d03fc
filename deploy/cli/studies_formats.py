"""Studies as a table for people, and as JSON and CSV for other programs."""

from collections.abc import Iterable, Sequence
from typing import IO

from rich.console import Console
from rich.markup import escape

from api.contract.findings import NOTICE
from api.contract.models import ModelReference
from api.contract.study_list import StudySummary, TopFinding
from deploy.cli.console import PIPED_WIDTH, out
from deploy.cli.model_names import name_model, warnings_of
from deploy.cli.tables import ANY_FINDING, Column, Table, probability
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
    "model",
    "model_digest",
    "authoritative_results",
    "other_results",
    "model_warnings",
    "abnormality",
)
#: Findings that a table shows of a study.
_SHOWN = 3
_REVIEW = {None: (), "begun": ("review begun",), "done": ("reviewed",)}


def write_table(studies: Iterable[StudySummary], file: IO[str] | None) -> None:
    """Write a row for each study; without a file on standard output.

    Findings are the active model's; those of other models stand below, under their names.
    """
    state, *folded = (Column(name, overflow="fold") for name in ("state", "findings", "flags"))
    head = (Column("study", no_wrap=True), Column("received", no_wrap=True), "priority")
    table = Table(*head, state, ANY_FINDING, *folded)
    models: list[ModelReference] = []
    for study in studies:
        models += _models(study)
        table.add_row(
            str(study.id),
            f"{study.created_at:%Y-%m-%d\n%H:%M}",
            str(study.priority),
            "\n".join([*_states(study), *_REVIEW[study.review], *(problem.code for problem in study.problems)]),
            probability(study.abnormality),
            escape("\n".join(_findings(study))),
            "\n".join(study.flags),
        )
    table.drop_if_empty(ANY_FINDING)
    console = out if file is None else Console(file=file, width=PIPED_WIDTH)
    console.print(table)
    for warning in warnings_of(models):
        console.print(warning)
    console.print(f"[dim]{NOTICE}[/]")


def _states(study: StudySummary) -> list[str]:
    """As `succeeded`, or of several images `2 succeeded` and `1 rejected`."""
    if study.image_count == 1:
        return [study.state]
    return [f"{count} {state}" for state, count in study.states.items()]


def _models(study: StudySummary) -> list[ModelReference]:
    """The models whose findings are shown."""
    return [*([study.model] if study.model else []), *(other.model for other in study.other_results)]


def _findings(study: StudySummary) -> list[str]:
    lines = _top(study.findings)
    if study.other_results and not study.authoritative_results:
        lines.append("no result of the active model")
    for other in study.other_results:
        said = "" if other.abnormality is None else f" any finding {probability(other.abnormality)}"
        lines += [f"{name_model(other.model)}:{said}", *(f"  {line}" for line in _top(other.findings) or ["none"])]
    return lines


def _top(findings: Sequence[TopFinding]) -> list[str]:
    shown = [f"{each.class_name} {each.score:.2f}" for each in findings[:_SHOWN]]
    more = len(findings) - _SHOWN
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
    """Write a row for each study; its findings as `class score`, joined by semicolons, the highest score first.

    Other models' results are `model digest (state): findings`, joined by ` | `.
    """
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
                _joined(study.findings),
                study.review or "",
                study.model.name if study.model else "",
                study.model.digest if study.model else "",
                study.authoritative_results,
                " | ".join(
                    f"{name_model(other.model)}: {_joined(other.findings) or 'none'}" for other in study.other_results
                ),
                " ".join(f"{model.name}: {warning}" for model in _models(study) for warning in model.warnings),
                study.abnormality,
            )
        )


def _joined(findings: Sequence[TopFinding]) -> str:
    return "; ".join(f"{each.class_name} {each.score}" for each in findings)
