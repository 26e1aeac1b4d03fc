"""`carina findings`: the findings of a study or of a whole submission, as a table or for other programs."""

from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from api.contract.findings import FindingsFormat
from deploy.cli.clients import connect
from deploy.cli.console import is_json, opened
from deploy.cli.environment import Data
from deploy.cli.findings_table import write_table

if TYPE_CHECKING:  # the HTTP client is only loaded by the commands that use it
    from api.client import Carina, FindingsAnswer

#: A table for people, and the formats that the server knows.
Format = StrEnum("Format", ["TABLE", *(each.name for each in FindingsFormat)])  # type: ignore[misc]
_TABLE = Format("table")


def findings(
    of: Annotated[str, typer.Argument(metavar="ID", help="A study or a submission, as `submit` printed it.")],
    min_score: Annotated[float, typer.Option(min=0, max=1, help="Minimum score.")] = 0.3,
    how: Annotated[Format, typer.Option("--format", help="`coco` can be read by pycocotools.")] = _TABLE,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write to this file.", dir_okay=False)] = None,
    overlay: Annotated[Path | None, typer.Option(help="Write the images with boxes to this folder.")] = None,
    data: Data = None,
) -> None:
    """Show the findings of a study, or of all images of a submission."""
    how = Format("json") if is_json() else how
    with connect(data) as client:
        id_ = client.find_id(of, "study", "submission")
        if overlay is not None:
            _draw_overlays(client, _studies(client, id_, min_score), overlay, min_score)
        with opened(output) as file:
            if how is _TABLE:
                write_table(_studies(client, id_, min_score), file if output else None)
            else:
                client.export_findings(id_, file, FindingsFormat(how), min_score=min_score)


def _studies(client: "Carina", of: UUID, min_score: float) -> "Iterator[FindingsAnswer]":
    """Yield the findings of a study, or of each study of a submission."""
    from api.client import RequestRefused

    try:
        yield client.findings(of, min_score=min_score)
    except RequestRefused as exc:
        if exc.code != "not_found":
            raise
        yield from client.submission_findings(of, min_score=min_score)


def _draw_overlays(client: "Carina", studies: "Iterable[FindingsAnswer]", folder: Path, min_score: float) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for study in studies:
        for image in study.images:
            if image.state == "succeeded" or image.other_results:
                (folder / f"{image.image_id}.png").write_bytes(client.overlay(image.image_id, min_score=min_score))
