"""`carina submit`: sends any number of files, and continues after an interruption."""

import json
import sys
from collections.abc import Iterable
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from deploy.cli.clients import connect
from deploy.cli.console import complain, err, is_json, out, print_json, remark
from deploy.cli.environment import Data
from deploy.cli.exits import Exit
from deploy.cli.submissions import (
    LISTED,
    Bar,
    Row,
    counted,
    has_every_result,
    journal_place,
    local_manifest,
    print_rows,
    print_summary,
    progress_bar,
    write_manifest,
)

if TYPE_CHECKING:  # the HTTP client is only loaded by the commands that use it
    from api.client import Carina, Journal, SubmissionAnswer

#: How long to wait until a few files are accepted or rejected.
_FEW_S = 10.0


def submit(
    paths: Annotated[
        list[Path],
        typer.Argument(help="DICOM, PNG or JPEG files, archives of them, DICOMDIRs, or folders.", exists=True),
    ],
    recursive: Annotated[bool, typer.Option(help="Include subfolders.")] = True,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the results.")] = False,
    timeout_s: Annotated[float, typer.Option(help="How long to wait, in seconds.")] = float("inf"),
    priority: Annotated[int, typer.Option(min=0, max=9, help="9 goes first.")] = 5,
    model: Annotated[str | None, typer.Option("--model", help="The model to detect with: its id or name.")] = None,
    manifest: Annotated[
        Path | None, typer.Option(help="Write the outcome of each file to this .csv or .jsonl file.", dir_okay=False)
    ] = None,
    names: Annotated[bool, typer.Option("--names", help="Send the names of the files to the server.")] = False,
    resume: Annotated[bool, typer.Option("--resume/--new", help="Continue an interrupted submission.")] = True,
    threads: Annotated[int, typer.Option(min=1, max=64, help="Uploads at a time.")] = 8,
    data: Data = None,
) -> None:
    """Send studies, and print the outcome of each file. Repeat the command to continue after an interruption."""
    from api.client import Journal, RequestRefused

    unreadable = 0
    _require_files(paths, recursive)

    def complain_of(path: Path, error: Exception) -> None:
        nonlocal unreadable
        unreadable += 1

    with connect(data) as client, Journal(journal_place(client.api_url, paths)) as journal:
        model_id = client.find_model(model) if model is not None else None
        _greet(journal, resume)
        try:
            with progress_bar() as bar, counted(paths, recursive, bar):
                submission = client.submit_all(
                    paths,
                    recursive=recursive,
                    priority=priority,
                    model_id=model_id,
                    names=names,
                    threads=threads,
                    journal=journal,
                    on_progress=bar.sent,
                    on_unreadable=complain_of,
                    on_fallback=lambda error: complain(error.detail, hint="The files go through the API instead."),
                )
                submission = _await(client, submission, timeout_s if wait else None, bar)
        except KeyboardInterrupt:
            given_up = f"; `carina cancel {journal.submission_id}` gives it up" if journal.submission_id else ""
            err.print(f"Interrupted. The same command goes on where this one stopped{given_up}.", soft_wrap=True)
            raise typer.Exit(Exit.INTERRUPTED) from None
        try:
            _report(client, submission, journal, unreadable, manifest, timeout_s=timeout_s if wait else 0)
        except RequestRefused as exc:
            if exc.status != HTTPStatus.FORBIDDEN:
                raise
            if is_json():
                print_json({"submission": submission, "files": None})
            else:
                print_summary(submission, unreadable)
            remark("Only a key with the scope `read` is told what became of each file.")
        if submission.state.is_final or not wait:
            journal.remove()
    if unreadable or not has_every_result(submission) or (wait and not submission.state.is_final):
        raise typer.Exit(Exit.NO_RESULT)


def _require_files(paths: list[Path], recursive: bool) -> None:
    """Raise `typer.BadParameter` if there is nothing to send: most likely the path is wrong."""
    from api.client.files import walk

    unreadable: list[Path] = []
    found = walk(paths, recursive=recursive, on_unreadable=lambda path, _: unreadable.append(path))
    if next(found, None) is None and not unreadable:
        deeper = "" if recursive else " Folders within are left out by --no-recursive."
        raise typer.BadParameter(f"There is no file in {', '.join(map(str, paths))}.{deeper}")


def _greet(journal: "Journal", resume: bool) -> None:
    """Say whether a submission of an earlier run is continued."""
    earlier = journal.submission_id
    if earlier is None:
        return
    if resume:
        remark(f"continuing submission {earlier}")
    else:
        remark(f"leaving submission {earlier} as it is; `carina cancel {earlier}` ends it")
        journal.reset()


def _await(client: "Carina", submission: "SubmissionAnswer", timeout_s: float | None, bar: Bar) -> "SubmissionAnswer":
    """Wait for the results; without a time limit, only until a few files are accepted or rejected."""
    from api.client import RequestRefused

    if timeout_s is not None:
        return client.wait_submission(submission.id, timeout_s=timeout_s, on_progress=bar.followed)
    if submission.file_count > LISTED:
        return submission
    try:
        return client.wait_submission(
            submission.id, timeout_s=_FEW_S, until=lambda now: now.state.is_final or now.counts.arrived == 0
        )
    except RequestRefused as exc:
        if exc.status != HTTPStatus.FORBIDDEN:
            raise
        return submission


def _report(
    client: "Carina",
    submission: "SubmissionAnswer",
    journal: "Journal",
    unreadable: int,
    manifest: Path | None,
    *,
    timeout_s: float,
) -> None:
    """Print the outcome of each file, on the terminal or to a file, and the number of files by outcome."""
    is_short = submission.file_count + unreadable <= LISTED
    if manifest is None and not is_short and not is_json():
        manifest = Path(f"carina-{submission.id}.csv")
    if manifest is not None:
        write_manifest(local_manifest(client, submission, journal), manifest)
    if is_json():
        _print_json(submission, local_manifest(client, submission, journal))
        return
    if is_short:
        rows = list(local_manifest(client, submission, journal))
        print_rows(rows, _ends_of_duplicates(client, rows, timeout_s))
    print_summary(submission, unreadable)
    if manifest is not None:
        out.print(f"outcome of each file: {manifest}", soft_wrap=True)
    if not submission.state.is_final:
        out.print(f"[dim]`carina status {submission.id} --wait` waits for the results.[/]", soft_wrap=True)


def _ends_of_duplicates(client: "Carina", rows: Iterable[Row], timeout_s: float) -> dict[str, str]:
    """Wait for the jobs of duplicates, which belong to earlier submissions."""
    jobs = [UUID(row["job_id"]) for row in rows if row["outcome"] == "duplicate" and row["job_id"]]
    return {str(job.id): job.state for job in client.wait(jobs, timeout_s=timeout_s)}


def _print_json(submission: "SubmissionAnswer", rows: Iterable[Row]) -> None:
    """Print row by row: the whole need not fit into memory."""
    sys.stdout.write(f'{{"submission": {submission.model_dump_json()}, "files": [')
    for count, row in enumerate(rows):
        sys.stdout.write(("," if count else "") + "\n" + json.dumps(row))
    sys.stdout.write("\n]}\n")
