"""`carina backup` and `carina restore`: an installation in a folder, and back."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn

from deploy.cli.console import progress_of, show_result
from deploy.cli.environment import Data, settings_of
from shared.settings import SettingsWithoutHints

if TYPE_CHECKING:
    from deploy.backup.making import OnProgress

Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="The folder of the backup.", file_okay=False)]


def backup(folder: Folder, data: Data = None) -> None:
    """Back up the database and the object store into a folder, while everything works.

    A second backup into the same folder copies only new objects, and replaces the first one when it is complete. Needs
    the settings of the servers, and `pg_dump` of the server's PostgreSQL version or a newer one.
    """
    from deploy.backup import BackupFolder, back_up

    settings = settings_of(data, SettingsWithoutHints)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    place = BackupFolder(folder)
    with place.hold(), _progress() as on_progress:
        manifest = back_up(settings, place, on_progress)
    size = f"{manifest.object_count:,} objects with {manifest.byte_count:,} bytes"
    show_result(manifest, f"backed up the database and {size} into {folder}")


def restore(folder: Folder, data: Data = None) -> None:
    """Restore a backup into an empty database and an empty bucket, while no process of Carina runs.

    Work that was under way when the backup was made goes back to its queue.
    """
    from deploy.backup import BackupFolder, NoBackup
    from deploy.backup import restore as bring_back

    settings = settings_of(data, SettingsWithoutHints)
    if not folder.is_dir():
        raise NoBackup(f"{folder} does not exist.")
    place = BackupFolder(folder)
    with place.hold(), _progress() as on_progress:
        restored = bring_back(settings, place, on_progress)
    manifest = restored.manifest
    show_result(
        {"backup": manifest.model_dump(mode="json"), "leases_returned": restored.leases},
        f"restored the backup of {manifest.created_at:%Y-%m-%d %H:%M:%S}Z with {manifest.object_count:,} objects; "
        f"{restored.leases:,} leases were returned",
        "Start the processes, then run `carina doctor` and `carina fsck`.",
    )


@contextmanager
def _progress() -> "Iterator[OnProgress]":
    """Show what is done, with a bar where the amount is known."""
    columns = (TextColumn("{task.description:<10}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with progress_of(*columns) as progress:
        task = progress.add_task("objects", total=None)

        def on_progress(what: str, byte_count: int, total: int | None) -> None:
            if byte_count:
                progress.advance(task, byte_count)
            else:
                progress.reset(task, description=what, total=total)

        yield on_progress
