"""`carina studies`, `rerun` and `erase`: searching studies, detecting again, and removing a study for good."""

from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from api.contract.study_list import SearchedState, StudiesQuery, StudyOrder
from deploy.cli.clients import connect
from deploy.cli.console import explain, is_json, opened, out, show_result
from deploy.cli.environment import Data
from deploy.cli.status import print_jobs
from deploy.cli.studies_formats import write_csv, write_json, write_jsonl, write_table
from shared.vocabulary.flags import Flag

#: Studies in one page of the API.
_PAGE = 500


class Format(StrEnum):
    """Output formats of studies."""

    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"
    CSV = "csv"


def studies(
    text: Annotated[
        str | None,
        typer.Argument(
            metavar="ID",
            help="Id of a study, image, job or submission, StudyInstanceUID, or beginning of an original's SHA-256.",
        ),
    ] = None,
    state: Annotated[
        SearchedState | None, typer.Option(help="State of the latest job of an image; `open`: not final.")
    ] = None,
    finding: Annotated[str | None, typer.Option(help="Name of a class that was found.")] = None,
    min_score: Annotated[float, typer.Option(min=0, max=1, help="Minimum score.")] = 0.3,
    min_abnormality: Annotated[
        float | None, typer.Option(min=0, max=1, help="Minimum probability of any finding, by the active model.")
    ] = None,
    flag: Annotated[Flag | None, typer.Option(help="Flag of an image.")] = None,
    priority: Annotated[int | None, typer.Option(min=0, max=9, help="Priority of the latest job of an image.")] = None,
    since: Annotated[str | None, typer.Option(help="Received on or after this day or time.")] = None,
    until: Annotated[str | None, typer.Option(help="Received on or before this day or time.")] = None,
    order: Annotated[
        StudyOrder, typer.Option(help="`abnormality`: the highest probability of any finding first.")
    ] = StudyOrder.NEWEST,
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="How many of the first to show.")] = 50,
    every: Annotated[bool, typer.Option("--all", help="Show all of them.")] = False,
    how: Annotated[
        Format, typer.Option("--format", help="`jsonl` and `csv` have a line for each study.")
    ] = Format.TABLE,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write to this file.", dir_okay=False)] = None,
    data: Data = None,
) -> None:
    """Search studies by state, finding, flag, priority and time, the newest first by default; times are UTC."""
    conditions: dict[str, object] = {"q": text, "state": state, "finding": finding, "flag": flag, "priority": priority}
    conditions |= {"min_abnormality": min_abnormality, "order": order}
    limit = _PAGE if every else min(count, _PAGE)
    search = _search(**conditions, since=since, until=until, min_score=min_score, limit=limit)
    with connect(data) as client, opened(output) as file:
        found = islice(client.studies(search), None if every else count)
        match Format.JSON if is_json() else how:
            case Format.TABLE:
                write_table(found, file if output else None)
            case Format.JSON:
                write_json(found, file)
            case Format.JSONL:
                write_jsonl(found, file)
            case Format.CSV:
                write_csv(found, file)


def _search(**asked: object) -> StudiesQuery:
    try:
        return StudiesQuery.model_validate({name: value for name, value in asked.items() if value is not None})
    except ValidationError as exc:
        raise typer.BadParameter(explain(exc)) from exc


def rerun(
    studies: Annotated[list[str], typer.Argument(metavar="STUDY...", help="Studies, as `carina studies` prints.")],
    priority: Annotated[int, typer.Option(min=0, max=9, help="A higher priority goes first.")] = 5,
    data: Data = None,
) -> None:
    """Run the active model on images for which it has no result, for example after a promotion."""
    with connect(data) as client:
        study_ids = [client.find_id(study, "study") for study in studies]
        jobs = [job for study_id in study_ids for job in client.rerun(study_id, priority=priority)]
    print_jobs(jobs)
    if not is_json():
        out.print("`carina status JOB --wait` waits for a job.")


def erase(
    study: Annotated[str | None, typer.Argument(metavar="STUDY", help="The study's id.")] = None,
    patient: Annotated[str | None, typer.Option(help="Erase all studies of this PatientID; `-` reads it.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    data: Data = None,
) -> None:
    """Erase a study, or all studies of a patient: originals, renditions, findings and reviews.

    Lists the models that have learnt from them, which are kept. Needs a key with the scope `admin`.
    """
    if (study is None) == (patient is None):
        raise typer.BadParameter("Name a study, or a patient with --patient.")
    with connect(data) as client:
        if study is not None:
            study_id = client.find_id(study, "study")
            if not yes:
                images = len(client.study(study_id).images)
                typer.confirm(f"Erase the study {study_id} with {images} images for good?", abort=True, err=True)
            erased = [client.erase_study(study_id)]
        else:
            patient_id = typer.prompt("PatientID", err=True) if patient == "-" else patient or ""
            if not yes:
                typer.confirm("Erase all studies of this patient for good?", abort=True, err=True)
            erased = client.erase_patient(patient_id)
    lines = [f"erased study {each.study_id}: {each.images} images" for each in erased] or ["no study of this patient"]
    if left := sum(each.objects_left for each in erased):
        lines.append(f"{left} objects are removed as soon as the object store allows.")
    learnt = {model.id: model for each in erased for model in each.learnt}
    lines += [f"model {model.name} ({model.id}, {model.state}) has learnt from them" for model in learnt.values()]
    show_result(erased[0] if study is not None else {"studies": erased}, *lines)
