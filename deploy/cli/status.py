"""`carina status`, `retry`, `cancel` and `priority`: the progress and the order of submissions and jobs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer
from pydantic import ValidationError

from api.contract.jobs import JobAnswer
from deploy.cli.clients import connect
from deploy.cli.console import explain, is_json, print_json, show_result, tell
from deploy.cli.environment import Data
from deploy.cli.exits import Exit
from deploy.cli.submissions import final_count, has_every_result, print_summary, progress_bar
from deploy.cli.tables import Column, print_list

if TYPE_CHECKING:  # the HTTP client is only loaded by the commands that use it
    from api.client import Carina, SubmissionAnswer


def status(
    ids: Annotated[
        list[str] | None, typer.Argument(help="Submissions or jobs; by default the latest submissions.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until they are finished.")] = False,
    timeout_s: Annotated[float, typer.Option(help="How long to wait, in seconds.")] = float("inf"),
    data: Data = None,
) -> None:
    """Show the progress of submissions and jobs."""
    from api.client import SubmissionAnswer

    with connect(data) as client:
        found: list[SubmissionAnswer | JobAnswer]
        found = [_find(client, id_) for id_ in ids] if ids else [*client.submissions()]
        if wait:
            found = [_await(client, one, timeout_s) for one in found]
    submissions = [one for one in found if isinstance(one, SubmissionAnswer)]
    jobs = [one for one in found if not isinstance(one, SubmissionAnswer)]
    if is_json():
        print_json(found)
    else:
        if jobs:
            print_jobs(jobs)
        if ids and len(submissions) == 1:
            print_summary(submissions[0])
        elif submissions:
            _print_submissions(submissions)
    lost = any(job.state != "succeeded" for job in jobs)
    lost = lost or any(not one.state.is_final or not has_every_result(one) for one in submissions)
    if wait and lost:
        raise typer.Exit(Exit.NO_RESULT)


def retry(
    submission: Annotated[str | None, typer.Argument(help="A submission.")] = None,
    paths: Annotated[list[Path] | None, typer.Argument(help="Files and folders to send again.", exists=True)] = None,
    code: Annotated[str | None, typer.Option(help="Retry all jobs that failed with this code.")] = None,
    hours: Annotated[
        float, typer.Option(min=0, max=8760, help="With --code: only jobs that failed in the last so many hours.")
    ] = 24,
    data: Data = None,
) -> None:
    """Retry the failed files of a submission, or all jobs that failed with a code."""
    with connect(data) as client:
        if submission is not None and code is None:
            _retry_submission(client, client.find_id(submission, "submission"), paths or [])
        elif code is not None and submission is None:
            _retry_failed(client, code, hours)
        else:
            raise typer.BadParameter("Name a submission, or say --code CODE.")


def cancel(
    ids: Annotated[list[str], typer.Argument(help="Submissions or jobs.")],
    data: Data = None,
) -> None:
    """Cancel jobs, or all unfinished jobs of submissions."""
    from api.client import SubmissionAnswer

    with connect(data) as client:
        for id_ in ids:
            found = _find(client, id_)
            is_submission = isinstance(found, SubmissionAnswer)
            one = client.cancel_submission(found.id) if is_submission else client.cancel(found.id)
            if is_json():
                tell(one)
            elif isinstance(one, SubmissionAnswer):
                print_summary(one)
            else:
                print_jobs([one])


def priority(
    priority: Annotated[int, typer.Argument(min=0, max=9, help="A higher one goes first.")],
    ids: Annotated[list[str], typer.Argument(help="Submissions, studies or jobs.")],
    data: Data = None,
) -> None:
    """Change the priority of what waits to be prepared or detected."""
    with connect(data) as client:
        for id_ in ids:
            answer = client.set_priority(client.find_id(id_, "submission", "study", "job"), priority)
            show_result(answer, f"{answer.jobs + answer.files:,} jobs and files of {id_} have priority {priority}")


def _retry_submission(client: "Carina", submission_id: UUID, paths: list[Path]) -> None:
    answer = client.retry_submission(submission_id)
    sent = client.resend(submission_id, paths) if answer.to_upload else 0
    missing = answer.to_upload - sent
    said = [f"{answer.retried} files are tried again"]
    if sent:
        said.append(f"{sent} files were sent again")
    if missing:
        said.append(f"{missing} files have to be sent again: `carina retry {submission_id} PATH`")
    show_result({"submission_id": submission_id, "retried": answer.retried, "sent": sent, "missing": missing}, *said)
    if missing:
        raise typer.Exit(Exit.NO_RESULT)


def _retry_failed(client: "Carina", code: str, hours: float) -> None:
    try:
        answer = client.retry_failed(code, hours=hours)
    except ValidationError as exc:
        raise typer.BadParameter(explain(exc)) from exc
    show_result(answer, f"{answer.to_prepare + answer.to_detect:,} jobs are tried again")


def _find(client: "Carina", name: str) -> "SubmissionAnswer | JobAnswer":
    from api.client import RequestRefused

    id_ = client.find_id(name, "submission", "job")
    try:
        return client.submission(id_)
    except RequestRefused as exc:
        if exc.code != "not_found":
            raise
    return client.job(id_)


def _await(client: "Carina", one: "SubmissionAnswer | JobAnswer", timeout_s: float) -> "SubmissionAnswer | JobAnswer":
    from api.client import SubmissionAnswer

    if not isinstance(one, SubmissionAnswer):
        return client.wait([one.id], timeout_s=timeout_s)[0]
    with progress_bar() as bar:
        return client.wait_submission(one.id, timeout_s=timeout_s, on_progress=bar.followed)


def print_jobs(jobs: list[JobAnswer]) -> None:
    """Print the fields of jobs, except ids, the priority and times."""
    columns = [name for name in JobAnswer.model_fields if not name.endswith(("id", "_at")) and name != "priority"]
    fields = ([getattr(job, name) for name in columns] for job in jobs)
    rows = [
        (job.id, *(", ".join(field) if isinstance(field, list) else field for field in row))
        for job, row in zip(jobs, fields, strict=True)
    ]
    print_list(jobs, [Column("job", no_wrap=True), *columns], rows)


def _print_submissions(submissions: "list[SubmissionAnswer]") -> None:
    rows = [
        (
            one.id,
            one.state,
            one.priority,
            f"{final_count(one):,}/{one.file_count:,}",
            f"{one.counts.rejected + one.counts.failed + one.counts.cancelled:,}",
            f"{one.created_at:%Y-%m-%d %H:%M}",
        )
        for one in submissions
    ]
    columns = (Column("submission", no_wrap=True), "state", "priority", "done", "without result", "since")
    print_list(submissions, columns, rows)
