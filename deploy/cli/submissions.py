"""Journal, progress bar, summary and manifest of bulk submissions, for several commands."""

import hashlib
import json
import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from deploy.cli.console import out, progress_of
from deploy.cli.tables import Column, Table
from shared.csv_cells import CsvWriter

if TYPE_CHECKING:  # the HTTP client is only loaded by the commands that use it
    from api.client import Carina, Journal, SubmissionAnswer
    from api.client import Progress as Sent

#: Up to this many files are shown one by one; more are written to a manifest.
LISTED = 50
COLUMNS = (
    "path",
    "number",
    "archive_number",
    "entry_number",
    "outcome",
    "reason",
    "byte_count",
    "sha256",
    "study_id",
    "image_id",
    "job_id",
    "flags",
)
Row = dict[str, Any]


def journal_place(api_url: str, paths: Sequence[Path]) -> Path:
    """Return the path of the journal of sending these paths to this API."""
    state = os.environ.get("XDG_STATE_HOME")
    if not state:
        try:
            state = str(Path.home() / ".local" / "state")
        except RuntimeError as exc:  # a user without HOME and without an entry in passwd
            raise typer.BadParameter("There is no home folder: set XDG_STATE_HOME to a folder of yours.") from exc
    named = "\0".join([api_url, *sorted(str(path.resolve()) for path in paths)])
    return Path(state, "carina", f"{hashlib.sha256(os.fsencode(named)).hexdigest()[:32]}.sqlite")


class Bar:
    """One progress bar for the whole of a submission."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("sending", total=None, words="")
        #: How many files there are to send, once they have been counted.
        self._files: int | None = None
        self._known_bytes: int | None = None

    def expect(self, files: int, byte_count: int) -> None:
        """Say how much there is to send."""
        self._files = files
        self._progress.update(self._task, total=byte_count)

    def sent(self, sent: "Sent") -> None:
        """Show how far the sending is."""
        if self._known_bytes is None:  # files of an earlier run do not count for the speed of this one
            self._known_bytes = sent.byte_count
            self._progress.reset(self._task, completed=sent.byte_count, total=self._progress.tasks[0].total)
        speed = self._progress.tasks[0].speed or 0
        words = f"{_of(sent.files, self._files)} files  {speed / 1e6:.1f} MB/s"
        self._progress.update(self._task, completed=sent.byte_count, words=words)

    def followed(self, submission: "SubmissionAnswer") -> None:
        """Show how far the results are."""
        final = final_count(submission)
        pace = f"  {submission.files_per_s:.1f} files/s" if submission.files_per_s else ""
        self._progress.update(
            self._task,
            description="detecting",
            completed=final,
            total=submission.file_count or None,
            words=f"{_of(final, submission.file_count)} files{pace}",
        )


@contextmanager
def progress_bar() -> Iterator[Bar]:
    """Show a bar while this lasts."""
    columns: list[Any] = [
        TextColumn("{task.description:<10}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[words]}"),
        TimeRemainingColumn(),
    ]
    with progress_of(*columns) as progress:
        yield Bar(progress)


@contextmanager
def counted(paths: Iterable[Path], recursive: bool, bar: Bar) -> Iterator[None]:
    """Count the files to send in another thread, so that sending begins at once."""
    from api.client.files import walk

    over = threading.Event()

    def count() -> None:
        files = byte_count = 0
        for path in walk(paths, recursive=recursive, on_unreadable=lambda _, __: None):
            files += 1
            with suppress(OSError):  # the sending says so
                byte_count += path.stat().st_size
            if over.is_set():
                return
        bar.expect(files, byte_count)

    counting = threading.Thread(target=count, daemon=True)
    counting.start()
    try:
        yield
    finally:
        over.set()
        counting.join()


def final_count(submission: "SubmissionAnswer") -> int:
    """Return the number of files with a final outcome."""
    counts = submission.counts
    return submission.file_count - counts.expected - counts.arrived - counts.accepted


def local_manifest(client: "Carina", submission: "SubmissionAnswer", journal: "Journal") -> Iterator[Row]:
    """Yield the outcome of each file with its local path; files that could not be announced come last."""
    for row in client.manifest(submission.id):
        # An archive's entries are shown under the archive.
        file = journal.file(row.number if row.archive_number is None else row.archive_number)
        of_server = row.model_dump(mode="json", include=set(COLUMNS))
        here = file.reason if file is not None and row.outcome.startswith("failed:") else None
        yield of_server | {"path": str(file.path) if file else None, "reason": here or row.reason}
    for file in journal.unreadable():
        yield dict.fromkeys(COLUMNS) | {
            "path": str(file.path),
            "outcome": f"failed:{file.state}",
            "reason": file.reason,
        }


def write_manifest(rows: Iterable[Row], path: Path) -> None:
    """Write rows as CSV, or as JSON lines if the file is named `.jsonl`; all of them or none."""
    part = path.with_name(f"{path.name}.part")
    # Paths may contain bytes that are not Unicode text; they are written unchanged.
    with part.open("w", newline="", errors="surrogateescape") as file:
        if path.suffix == ".jsonl":
            for row in rows:
                file.write(json.dumps({column: row[column] for column in COLUMNS}) + "\n")
        else:
            writer = CsvWriter(file)
            writer.write(COLUMNS)
            for row in rows:
                cells = row | {"flags": " ".join(row["flags"] or ())}
                writer.write(cells[column] for column in COLUMNS)
    part.replace(path)


def print_rows(rows: Iterable[Row], states: Mapping[str, str]) -> None:
    """Print a line for each file; `states` are the final states of the jobs of duplicates."""
    table = Table("file", "outcome", "reason", Column("study", no_wrap=True), Column("job", no_wrap=True))
    for row in rows:
        name = Path(row["path"] or "").name + (f"[{row['entry_number']}]" if row["entry_number"] is not None else "")
        ids = [str(row[key] or "") for key in ("study_id", "job_id")]
        ended = states.get(ids[1])
        outcome = f"{row['outcome']}: {ended}" if ended else row["outcome"]
        table.add_row(_printable(name), outcome, row["reason"] or "", *ids)
    out.print(table)


def print_summary(submission: "SubmissionAnswer", unreadable: int = 0) -> None:
    """Print the number of files by outcome and code."""
    out.print(f"submission {submission.id}: {submission.state}, {submission.file_count} files", soft_wrap=True)
    table = Table("outcome", "code", Column("files", justify="right"))
    for outcome, count in submission.counts.model_dump().items():
        if count:
            table.add_row(outcome, "", f"{count:,}")
    for code, count in sorted(submission.codes.items(), key=lambda item: -item[1]):
        table.add_row("", code, f"{count:,}")
    if unreadable:
        table.add_row("not sent", "", f"{unreadable:,}")
    out.print(table)


def has_every_result(submission: "SubmissionAnswer") -> bool:
    """Whether nothing has failed so far."""
    counts = submission.counts
    return counts.rejected + counts.failed + counts.cancelled == 0


def _of(done: int, total: int | None) -> str:
    return f"{done:,}" if total is None else f"{done:,}/{total:,}"


def _printable(text: str) -> str:
    return text.encode(errors="replace").decode()
