"""`carina findings`: what was found in a study or a whole submission, for people and for other programs."""

import csv
import json
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from enum import StrEnum
from itertools import count, islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer
from rich.console import Console
from rich.table import Column, Table

from deploy.cli.clients import connect
from deploy.cli.console import PIPED_WIDTH, out
from deploy.cli.environment import Data
from shared.errors import CarinaError

if TYPE_CHECKING:  # the HTTP client is only loaded by the commands that use it
    from api.client import Carina, FindingsAnswer, ImageFindings

#: Studies asked for at a time.
_THREADS = 8
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
)


class Format(StrEnum):
    """How findings are shown."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    COCO = "coco"


class ModelsDiffer(CarinaError):
    """The images were looked at by models whose classes differ, which one COCO document cannot say."""

    code = "classes_differ"


def findings(
    of: Annotated[UUID, typer.Argument(metavar="ID", help="A study or a submission, as `submit` printed it.")],
    min_score: Annotated[float, typer.Option(min=0, max=1, help="Leave out findings below this score.")] = 0.3,
    how: Annotated[Format, typer.Option("--format", help="`coco` is what pycocotools reads.")] = Format.TABLE,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write into this file.", dir_okay=False)] = None,
    overlay: Annotated[Path | None, typer.Option(help="Write the images with boxes into this folder.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    data: Data = None,
) -> None:
    """Show what was found in a study, or in all images of a submission."""
    how = Format.JSON if as_json else how
    with connect(data) as client:
        studies, is_study = _studies(client, of, min_score)
        if overlay is not None:
            studies = _with_overlays(client, studies, overlay, min_score)
        with _opened(output) as file:
            match how:
                case Format.TABLE:
                    _write_table(studies, file if output else None)
                case Format.JSON:
                    _write_json(studies, file, is_study)
                case Format.CSV:
                    _write_csv(studies, file)
                case Format.COCO:
                    _write_coco(client, studies, file)


def _studies(client: "Carina", of: UUID, min_score: float) -> "tuple[Iterator[FindingsAnswer], bool]":
    """Return the findings of a study or of a submission's images, and whether it is a study."""
    from api.client import RequestRefused

    try:
        return iter([client.findings(of, min_score=min_score)]), True
    except RequestRefused as exc:
        if exc.code != "not_found":
            raise
    client.submission(of)
    return _of_submission(client, of, min_score), False


def _of_submission(client: "Carina", submission_id: UUID, min_score: float) -> "Iterator[FindingsAnswer]":
    """Yield each study once, with those of its images that were sent in this submission."""
    images: dict[UUID, set[UUID]] = {}
    for row in client.manifest(submission_id):
        if row.study_id is not None and row.image_id is not None:
            images.setdefault(row.study_id, set()).add(row.image_id)
    studies = iter(images.items())
    with ThreadPoolExecutor(_THREADS) as pool:
        while some := list(islice(studies, 10 * _THREADS)):
            for answer in pool.map(lambda pair: client.findings(pair[0], min_score=min_score), some):
                sent = images[answer.study_id]
                yield answer.model_copy(update={"images": [one for one in answer.images if one.image_id in sent]})


def _with_overlays(
    client: "Carina", studies: "Iterable[FindingsAnswer]", folder: Path, min_score: float
) -> "Iterator[FindingsAnswer]":
    folder.mkdir(parents=True, exist_ok=True)
    for study in studies:
        for image in study.images:
            if image.state == "succeeded":
                (folder / f"{image.image_id}.png").write_bytes(client.overlay(image.image_id, min_score=min_score))
        yield study


@contextmanager
def _opened(output: Path | None) -> Iterator[IO[str]]:
    """A file that is there as a whole or not at all; without a path, standard output."""
    if output is None:
        yield sys.stdout
        return
    part = output.with_name(f"{output.name}.part")
    with part.open("w", newline="") as file:
        yield file
    part.replace(output)


def _write_table(studies: "Iterable[FindingsAnswer]", file: IO[str] | None) -> None:
    table = Table(Column("image", no_wrap=True), "finding", "score", "box (x, y, x, y in pixels)")
    notice = ""
    for study in studies:
        notice = study.notice
        for image in study.images:
            if not image.findings:
                table.add_row(str(image.image_id), f"none ({image.state})", "", image.code or "")
            for finding in image.findings:
                box = ", ".join(f"{value:.0f}" for value in finding.box_xyxy_px)
                table.add_row(str(image.image_id), finding.class_name, f"{finding.score:.2f}", box)
    console = out if file is None else Console(file=file, width=PIPED_WIDTH)
    console.print(table)
    console.print(f"[dim]{notice}[/]")


def _write_json(studies: "Iterable[FindingsAnswer]", file: IO[str], is_study: bool) -> None:
    """Write a study as one object, those of a submission as an array of such objects."""
    if is_study:
        file.writelines(study.model_dump_json(indent=2) + "\n" for study in studies)
        return
    file.write("[")
    for number, study in enumerate(studies):
        file.write((",\n" if number else "\n") + study.model_dump_json())
    file.write("\n]\n")


def _write_csv(studies: "Iterable[FindingsAnswer]", file: IO[str]) -> None:
    """Write a row for each finding, and one without a class for an image without findings."""
    writer = csv.writer(file)
    writer.writerow(CSV_COLUMNS)
    for study in studies:
        for image in study.images:
            model = (image.model.name, image.model.digest) if image.model else ("", "")
            head = (study.study_id, image.image_id, image.job_id, image.state, image.code)
            tail = (image.width_px, image.height_px, *model)
            found: list[list[Any]] = [
                [one.class_id, one.class_name, one.score, *one.box_xyxy_px] for one in image.findings
            ]
            writer.writerows([*head, *one, *tail] for one in found or [[""] * 7])


def _write_coco(client: "Carina", studies: "Iterable[FindingsAnswer]", file: IO[str]) -> None:
    """Write a COCO document whose annotations have scores: images that succeeded, and the classes of their model."""
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
