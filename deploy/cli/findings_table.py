"""Findings as a table for people; other formats are the server's."""

from collections.abc import Iterable
from typing import IO, TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from deploy.cli.console import PIPED_WIDTH, out
from deploy.cli.model_names import name_model, warnings_of
from deploy.cli.tables import ANY_FINDING, Column, Table, probability
from shared.vocabulary.states import JobState

if TYPE_CHECKING:  # the HTTP client is only loaded by the commands that use it
    from api.client import Finding, FindingsAnswer
    from api.contract.models import ModelReference

#: What millimetres mean, by the source of the spacing.
_MEASURED = {
    "calibrated": "mm: calibrated, in the patient.",
    "detector": "mm: at the detector, where the body's shadow is larger than the body.",
    "film": "mm: on the film that was scanned, where the body's shadow is larger than the body.",
    "unspecified": "mm: as the file says, which does not say whether at the detector or in the patient.",
}


def write_table(studies: "Iterable[FindingsAnswer]", file: IO[str] | None) -> None:
    """Write a row for each finding, and one for a result without findings; without a file on standard output."""
    image_column = Column("image", no_wrap=True)
    box_column, size_column = "box (x, y, x, y in pixels)", "size (mm)"
    table = Table(image_column, "finding", "score", box_column, size_column, "flags", ANY_FINDING, "model")
    notice = ""
    sources: set[str] = set()
    models: list[ModelReference] = []
    for study in studies:
        notice = study.notice
        for image in study.images:
            id_, flags = str(image.image_id), ", ".join(image.flags or ())
            for result in image.results():
                model = result.model or (study.active_model if result.state is None else None)
                name = escape(name_model(model)) if model else ""
                models += [model] if model and result.state == JobState.SUCCEEDED else []
                end = (flags, probability(result.abnormality), name)
                if not result.findings:
                    table.add_row(id_, f"none ({result.state or 'no result'})", "", result.code or "", "", *end)
                elif image.pixel_spacing is not None:
                    sources.add(image.pixel_spacing.source)
                for finding in result.findings:
                    box = ", ".join(f"{value:.0f}" for value in finding.box_xyxy_px)
                    found = (escape(finding.class_name), f"{finding.score:.2f}", box, _size_mm(finding))
                    table.add_row(id_, *found, *end)
    table.drop_if_empty(ANY_FINDING)
    console = out if file is None else Console(file=file, width=PIPED_WIDTH)
    console.print(table)
    for source in sorted(sources):
        console.print(f"[dim]{_MEASURED[source]}[/]")
    for warning in warnings_of(models):
        console.print(warning)
    console.print(f"[dim]{notice}[/]")


def _size_mm(finding: "Finding") -> str:
    """Width and height, as `43 × 61`; empty where a pixel's size is not known."""
    if finding.box_xyxy_mm is None:
        return ""
    x_min, y_min, x_max, y_max = finding.box_xyxy_mm
    return f"{x_max - x_min:.0f} × {y_max - y_min:.0f}"
