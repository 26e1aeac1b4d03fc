"""Findings as a table for people, and as JSON, CSV and COCO for other programs."""

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import count
from typing import IO, TYPE_CHECKING, Any
from uuid import UUID

from rich.console import Console

from deploy.cli.console import PIPED_WIDTH, out
from deploy.cli.tables import Column, Table
from shared.csv_cells import CsvWriter
from shared.errors import CarinaError

if TYPE_CHECKING:  # the HTTP client is only loaded by the commands that use it
    from api.client import Carina, Finding, FindingsAnswer, ImageFindings

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
)
#: What millimetres mean, by the source of the spacing.
_MEASURED = {
    "calibrated": "mm: calibrated, in the patient.",
    "detector": "mm: at the detector, where the body's shadow is larger than the body.",
    "film": "mm: on the film that was scanned, where the body's shadow is larger than the body.",
    "unspecified": "mm: as the file says, which does not say whether at the detector or in the patient.",
}


class ModelsDiffer(CarinaError):
    """The images were looked at by models whose classes differ, which one COCO document cannot say."""

    code = "classes_differ"


def write_table(studies: "Iterable[FindingsAnswer]", file: IO[str] | None) -> None:
    """Write a row for each finding, and one for an image without findings; without a file on standard output."""
    image_column = Column("image", no_wrap=True)
    table = Table(image_column, "finding", "score", "box (x, y, x, y in pixels)", "size (mm)", "flags")
    notice = ""
    sources: set[str] = set()
    for study in studies:
        notice = study.notice
        for image in study.images:
            flags = ", ".join(image.flags or ())
            if not image.findings:
                table.add_row(str(image.image_id), f"none ({image.state})", "", image.code or "", "", flags)
            elif image.pixel_spacing is not None:
                sources.add(image.pixel_spacing.source)
            for finding in image.findings:
                box = ", ".join(f"{value:.0f}" for value in finding.box_xyxy_px)
                size = _size_mm(finding)
                table.add_row(str(image.image_id), finding.class_name, f"{finding.score:.2f}", box, size, flags)
    console = out if file is None else Console(file=file, width=PIPED_WIDTH)
    console.print(table)
    for source in sorted(sources):
        console.print(f"[dim]{_MEASURED[source]}[/]")
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
    """Write a row for each finding, and one without a class for an image without findings."""
    writer = CsvWriter(file)
    writer.write(CSV_COLUMNS)
    for study in studies:
        for image in study.images:
            model = (image.model.name, image.model.digest) if image.model else ("", "")
            head = (study.study_id, image.image_id, image.job_id, image.state, image.code)
            size = (image.width_px, image.height_px, *model)
            spacing = image.pixel_spacing
            tail = (spacing.row_mm, spacing.column_mm, spacing.source) if spacing else ("", "", "")
            flags = " ".join(image.flags or ())
            found: list[tuple[list[Any], Sequence[Any]]] = [
                ([one.class_id, one.class_name, one.score, *one.box_xyxy_px], one.box_xyxy_mm or [""] * 4)
                for one in image.findings
            ]
            writer.write_all([*head, *one, *size, *mm, *tail, flags] for one, mm in found or [([""] * 7, [""] * 4)])


def write_coco(client: "Carina", studies: "Iterable[FindingsAnswer]", file: IO[str]) -> None:
    """Write a COCO document whose annotations have scores: images that succeeded, and the classes of their model.

    COCO knows neither scores nor, of an image, its `study_id`, `pixel_spacing` and `flags`; its readers pass them over.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    used: dict[UUID, str] = {}
    numbers = count(1)
    notice = ""
    for study in studies:
        notice = study.notice
        for image in study.images:
            if image.model is None or image.state != "succeeded":
                continue
            used[image.model.id] = image.model.name
            images.append(
                {
                    "id": len(images) + 1,
                    "file_name": str(image.image_id),
                    "width": image.width_px,
                    "height": image.height_px,
                    "study_id": str(study.study_id),
                    "pixel_spacing": image.pixel_spacing and image.pixel_spacing.model_dump(mode="json"),
                    "flags": image.flags,
                }
            )
            annotations.extend(_annotations(image, len(images), numbers))
    json.dump(
        {
            "info": {"description": notice, "models": {str(id_): name for id_, name in used.items()}},
            "images": images,
            "categories": _categories(client, used),
            "annotations": annotations,
        },
        file,
    )
    file.write("\n")


def _annotations(image: "ImageFindings", image_number: int, numbers: Iterator[int]) -> Iterator[dict[str, Any]]:
    for finding in image.findings:
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


def _categories(client: "Carina", used: dict[UUID, str]) -> list[dict[str, Any]]:
    """Return the classes of these models' cards; raise `ModelsDiffer`."""
    names: dict[int, str] = {}
    for model in client.models() if used else ():
        for category in model.card["categories"] if model.id in used else ():
            if names.setdefault(category["id"], category["name"]) != category["name"]:
                raise ModelsDiffer
    return [{"id": id_, "name": name} for id_, name in sorted(names.items())]
