"""Findings as a table for people, and as JSON, CSV and COCO for other programs."""

import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import IO, TYPE_CHECKING, Any
from uuid import UUID

from rich.console import Console
from rich.markup import escape

from deploy.cli.console import PIPED_WIDTH, out
from deploy.cli.model_names import name_model, warnings_of
from deploy.cli.tables import Column, Table
from shared.csv_cells import CsvWriter
from shared.errors import CarinaError
from shared.vocabulary.states import JobState

if TYPE_CHECKING:  # the HTTP client is only loaded by the commands that use it
    from api.client import Carina, Finding, FindingsAnswer, ImageFindings
    from api.contract.models import ModelReference

CSV_COLUMNS = (
    "study_id",
    "image_id",
    "job_id",
    "state",
    "code",
    "class_id",
    "class_name",
    "score",
    "x_min_px",
    "y_min_px",
    "x_max_px",
    "y_max_px",
    "width_px",
    "height_px",
    "model",
    "model_digest",
    "x_min_mm",
    "y_min_mm",
    "x_max_mm",
    "y_max_mm",
    "row_spacing_mm",
    "column_spacing_mm",
    "spacing_source",
    "flags",
    "model_state",
    "is_authoritative",
    "model_warnings",
)
#: What millimetres mean, by the source of the spacing.
_MEASURED = {
    "calibrated": "mm: calibrated, in the patient.",
    "detector": "mm: at the detector, where the body's shadow is larger than the body.",
    "film": "mm: on the film that was scanned, where the body's shadow is larger than the body.",
    "unspecified": "mm: as the file says, which does not say whether at the detector or in the patient.",
}


@dataclass(frozen=True)
class _Result:
    """What one model found on an image, or why it found nothing."""

    job_id: "UUID | None"
    state: str | None
    code: str | None
    model: "ModelReference | None"
    is_authoritative: bool
    findings: "Sequence[Finding]"


def _results(image: "ImageFindings") -> Iterator[_Result]:
    """Yield where an image stands with the active model, then the results of other models."""
    yield _Result(image.job_id, image.state, image.code, image.model, image.is_authoritative, image.findings)
    for other in image.other_results:
        yield _Result(other.job_id, JobState.SUCCEEDED, None, other.model, False, other.findings)


class ModelsDiffer(CarinaError):
    """The findings come from models with different classes, which one COCO document cannot hold. Choose one model."""

    code = "models_differ"


def write_table(studies: "Iterable[FindingsAnswer]", file: IO[str] | None) -> None:
    """Write a row for each finding, and one for a result without findings; without a file on standard output."""
    image_column = Column("image", no_wrap=True)
    table = Table(image_column, "finding", "score", "box (x, y, x, y in pixels)", "size (mm)", "flags", "model")
    notice = ""
    sources: set[str] = set()
    models: list[ModelReference] = []
    for study in studies:
        notice = study.notice
        for image in study.images:
            id_, flags = str(image.image_id), ", ".join(image.flags or ())
            for result in _results(image):
                model = result.model or (study.active_model if result.state is None else None)
                name = escape(name_model(model)) if model else ""
                models += [model] if model and result.state == JobState.SUCCEEDED else []
                if not result.findings:
                    table.add_row(id_, f"none ({result.state or 'no result'})", "", result.code or "", "", flags, name)
                elif image.pixel_spacing is not None:
                    sources.add(image.pixel_spacing.source)
                for finding in result.findings:
                    box = ", ".join(f"{value:.0f}" for value in finding.box_xyxy_px)
                    found = (escape(finding.class_name), f"{finding.score:.2f}", box, _size_mm(finding))
                    table.add_row(id_, *found, flags, name)
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


def write_json(studies: "Iterable[FindingsAnswer]", file: IO[str], is_study: bool) -> None:
    """Write a study as one object, those of a submission as an array of such objects."""
    if is_study:
        file.writelines(study.model_dump_json(indent=2) + "\n" for study in studies)
        return
    file.write("[")
    for number, study in enumerate(studies):
        file.write((",\n" if number else "\n") + study.model_dump_json())
    file.write("\n]\n")


def write_csv(studies: "Iterable[FindingsAnswer]", file: IO[str]) -> None:
    """Write a row for each finding, and one without a class for a result without findings.

    Of an image the active model's rows come first; `is_authoritative` tells them from those of other models.
    """
    writer = CsvWriter(file)
    writer.write(CSV_COLUMNS)
    for study in studies:
        for image in study.images:
            for result in _results(image):
                writer.write_all(_rows(study, image, result))


def _rows(study: "FindingsAnswer", image: "ImageFindings", result: _Result) -> Iterator[Sequence[Any]]:
    head = (study.study_id, image.image_id, result.job_id, result.state, result.code)
    spacing, model = image.pixel_spacing, result.model
    size = (image.width_px, image.height_px, *((model.name, model.digest) if model else ("", "")))
    tail = (spacing.row_mm, spacing.column_mm, spacing.source) if spacing else ("", "", "")
    about = (" ".join(image.flags or ()), model.state if model else "", str(result.is_authoritative).lower())
    found: list[tuple[list[Any], Sequence[Any]]] = [
        ([one.class_id, one.class_name, one.score, *one.box_xyxy_px], one.box_xyxy_mm or [""] * 4)
        for one in result.findings
    ]
    for one, mm in found or [([""] * 7, [""] * 4)]:
        yield (*head, *one, *size, *mm, *tail, *about, " ".join(model.warnings) if model else "")


def write_coco(client: "Carina", studies: "Iterable[FindingsAnswer]", file: IO[str]) -> None:
    """Write a COCO document whose annotations have scores: images with a result, and the classes of their models.

    An image has one result here: the authoritative one, else that of the model that was active last. COCO knows neither
    scores nor, of an image, its `study_id`, `pixel_spacing`, `flags` and model; its readers pass them over.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    used: dict[UUID, ModelReference] = {}
    numbers = count(1)
    notice = ""
    for study in studies:
        notice = study.notice
        for image in study.images:
            result = next((one for one in _results(image) if one.state == JobState.SUCCEEDED), None)
            if result is None or result.model is None:
                continue
            used[result.model.id] = result.model
            images.append(
                {
                    "id": len(images) + 1,
                    "file_name": str(image.image_id),
                    "width": image.width_px,
                    "height": image.height_px,
                    "study_id": str(study.study_id),
                    "pixel_spacing": image.pixel_spacing and image.pixel_spacing.model_dump(mode="json"),
                    "flags": image.flags,
                    "model": result.model.name,
                    "model_digest": result.model.digest,
                    "model_state": result.model.state,
                    "is_authoritative": result.is_authoritative,
                }
            )
            annotations.extend(_annotations(result, len(images), numbers))
    json.dump(
        {
            "info": {
                "description": notice,
                "models": {str(id_): model.name for id_, model in used.items()},
                "model_warnings": {str(id_): model.warnings for id_, model in used.items()},
            },
            "images": images,
            "categories": _categories(client, used),
            "annotations": annotations,
        },
        file,
    )
    file.write("\n")


def _annotations(result: _Result, image_number: int, numbers: Iterator[int]) -> Iterator[dict[str, Any]]:
    for finding in result.findings:
        x_min, y_min, x_max, y_max = finding.box_xyxy_px
        width, height = x_max - x_min, y_max - y_min
        yield {
            "id": next(numbers),
            "image_id": image_number,
            "category_id": finding.class_id,
            "bbox": [x_min, y_min, width, height],
            "area": width * height,
            "iscrowd": 0,
            "score": finding.score,
        }


def _categories(client: "Carina", used: "Collection[UUID]") -> list[dict[str, Any]]:
    """Return the classes of these models' cards; raise `ModelsDiffer`."""
    names: dict[int, str] = {}
    for model in client.models() if used else ():
        for category in model.card["categories"] if model.id in used else ():
            if names.setdefault(category["id"], category["name"]) != category["name"]:
                raise ModelsDiffer
    return [{"id": id_, "name": name} for id_, name in sorted(names.items())]
