"""What a user of the API does from the command line: submit, status, findings."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column, Table

from deploy.cli.console import err, out, print_json
from deploy.cli.environment import Data, client_settings_of

if TYPE_CHECKING:  # the HTTP client is only loaded by the commands that use it
    from api.client import Carina, FileOutcome

#: Something that was sent in has no result.
EXIT_NO_RESULT = 3


def submit(
    paths: Annotated[list[Path], typer.Argument(help="DICOM, PNG or JPEG files, or folders of them.", exists=True)],
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the results.")] = False,
    timeout_s: Annotated[float, typer.Option(help="How long to wait, in seconds.")] = 600,
    priority: Annotated[int, typer.Option(min=0, max=9, help="9 is taken first.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    data: Data = None,
) -> None:
    """Send studies in, and say of each file what became of it."""
    files = sorted(file for path in paths for file in (path.rglob("*") if path.is_dir() else [path]) if file.is_file())
    if not files:
        raise typer.BadParameter("There is no file in what you named.")
    with connect(data) as client:
        outcomes = send(client, files, priority=priority)
        jobs = [outcome.job_id for outcome in outcomes if outcome.job_id is not None]
        states = await_jobs(client, jobs, timeout_s=timeout_s) if wait else {}
    if as_json:
        print_json(
            [outcome.model_dump(mode="json") | {"state": states.get(outcome.job_id)} for outcome in outcomes]  # type: ignore[arg-type]
        )
    else:
        _print_outcomes(outcomes, states)
    lost = [state for state in states.values() if state != "succeeded"]
    if lost or any(outcome.outcome == "rejected" for outcome in outcomes):
        raise typer.Exit(EXIT_NO_RESULT)


def status(
    ids: Annotated[list[UUID], typer.Argument(help="Jobs, as `submit` printed them.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    data: Data = None,
) -> None:
    """Say where jobs stand."""
    with connect(data) as client:
        jobs = [client.job(job_id) for job_id in ids]
    if as_json:
        print_json([job.model_dump(mode="json") for job in jobs])
        return
    table = Table(Column("job", no_wrap=True), "state", "attempt", "code", "reason")
    for job in jobs:
        table.add_row(str(job.id), job.state, str(job.attempt), job.code or "", job.reason or "")
    out.print(table)


def findings(
    study_id: Annotated[UUID, typer.Argument(help="A study, as `submit` printed it.")],
    min_score: Annotated[float, typer.Option(min=0, max=1, help="Leave out findings below this score.")] = 0.3,
    overlay: Annotated[Path | None, typer.Option(help="Write the images with boxes into this folder.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    data: Data = None,
) -> None:
    """Show what was found in a study."""
    with connect(data) as client:
        study = client.findings(study_id, min_score=min_score)
        pictures = []
        if overlay is not None:
            overlay.mkdir(parents=True, exist_ok=True)
            for image in study.images:
                if image.state == "succeeded":
                    pictures.append(overlay / f"{image.image_id}.png")
                    pictures[-1].write_bytes(client.overlay(image.image_id, min_score=min_score))
    if as_json:
        print_json(study.model_dump(mode="json"))
        return
    table = Table(Column("image", no_wrap=True), "finding", "score", "box (x, y, x, y in pixels)")
    for image in study.images:
        if not image.findings:
            table.add_row(str(image.image_id), f"none ({image.state})", "", image.code or "")
        for finding in image.findings:
            box = ", ".join(f"{value:.0f}" for value in finding.box_xyxy_px)
            table.add_row(str(image.image_id), finding.class_name, f"{finding.score:.2f}", box)
    out.print(table)
    for picture in pictures:
        out.print(str(picture), soft_wrap=True)
    out.print(f"[dim]{study.notice}[/]")


def connect(data: Path | None) -> "Carina":
    """Return a client for the API that the settings name."""
    from api.client import Carina

    settings = client_settings_of(data)
    return Carina(settings.api_url, settings.api_key.get_secret_value())


def send(client: "Carina", files: Sequence[Path], *, priority: int = 5) -> "list[FileOutcome]":
    """Upload files under a progress bar."""
    with _progress("sending") as progress:
        task = progress.add_task("sending", total=len(files))
        return client.submit(files, priority=priority, on_file=lambda _: progress.advance(task))


def await_jobs(client: "Carina", jobs: Sequence[UUID], *, timeout_s: float) -> dict[UUID, str]:
    """Wait for jobs under a progress bar; return their last known states."""
    with _progress("detecting") as progress:
        task = progress.add_task("detecting", total=len(set(jobs)))
        done = client.wait(jobs, timeout_s=timeout_s, on_job=lambda _: progress.advance(task))
    return {job.id: job.state for job in done}


def register(app: typer.Typer) -> None:
    """Add these commands."""
    for command in (submit, status, findings):
        app.command(rich_help_panel="Studies")(command)


def _progress(what: str) -> Progress:
    columns: list[Any] = [TextColumn(f"{what:<10}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
    return Progress(*columns, console=err)


def _print_outcomes(outcomes: "Sequence[FileOutcome]", states: dict[UUID, str]) -> None:
    table = Table("file", "outcome", "code", Column("study", no_wrap=True), Column("job", no_wrap=True))
    for outcome in outcomes:
        state = states.get(outcome.job_id, outcome.outcome) if outcome.job_id else outcome.outcome
        table.add_row(outcome.name, state, outcome.code or "", str(outcome.study_id or ""), str(outcome.job_id or ""))
    out.print(table)
    counts = Counter(outcome.outcome for outcome in outcomes)
    out.print(", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items())))
