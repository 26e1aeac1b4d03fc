"""The client of the API as commands use it, with progress bars."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from deploy.cli.console import progress_of, remark
from deploy.cli.environment import client_settings_of

if TYPE_CHECKING:  # the HTTP client is only loaded by the commands that use it
    from api.client import Carina, FileOutcome

#: How long a command waits for the first answer of a server; a server that has answered before is waited for.
_FIRST_ANSWER_S = 2.5


def connect(data: Path | None) -> "Carina":
    """Return a client of the API at `CARINA_API_URL`."""
    from api.client import Carina

    settings = client_settings_of(data)
    key = settings.api_key.get_secret_value()
    first_answer_s, bundle = _FIRST_ANSWER_S, settings.ca_bundle
    return Carina(settings.api_url, key, first_answer_s=first_answer_s, ca_bundle=bundle, on_retry=remark)


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


def _progress(what: str) -> Progress:
    columns: list[Any] = [TextColumn(f"{what:<10}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
    return progress_of(*columns)
