"""`carina findings`: the findings of a study or of a whole submission, as a table or for other programs."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from deploy.cli.clients import connect
from deploy.cli.console import is_json, opened
from deploy.cli.environment import Data
from deploy.cli.findings_formats import write_coco, write_csv, write_json, write_table

if TYPE_CHECKING:  # the HTTP client is only loaded by the commands that use it
    from api.client import Carina, FindingsAnswer

#: Studies that are requested at the same time.
_THREADS = 8


class Format(StrEnum):
    """Output formats of findings."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    COCO = "coco"


def findings(
    of: Annotated[str, typer.Argument(metavar="ID", help="A study or a submission, as `submit` printed it.")],
    min_score: Annotated[float, typer.Option(min=0, max=1, help="Minimum score.")] = 0.3,
    how: Annotated[Format, typer.Option("--format", help="`coco` can be read by pycocotools.")] = Format.TABLE,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write to this file.", dir_okay=False)] = None,
    overlay: Annotated[Path | None, typer.Option(help="Write the images with boxes to this folder.")] = None,
    data: Data = None,
) -> None:
    """Show the findings of a study, or of all images of a submission."""
    how = Format.JSON if is_json() else how
    with connect(data) as client:
        studies, is_study = _studies(client, client.find_id(of, "study", "submission"), min_score)
        if overlay is not None:
            studies = _with_overlays(client, studies, overlay, min_score)
        with opened(output) as file:
            match how:
                case Format.TABLE:
                    write_table(studies, file if output else None)
                case Format.JSON:
                    write_json(studies, file, is_study)
                case Format.CSV:
                    write_csv(studies, file)
                case Format.COCO:
                    write_coco(client, studies, file)


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
            if image.state == "succeeded" or image.other_results:
                (folder / f"{image.image_id}.png").write_bytes(client.overlay(image.image_id, min_score=min_score))
        yield study
