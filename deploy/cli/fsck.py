"""`carina fsck`: compares the object store with the database, and repairs both on request."""

from datetime import timedelta
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from deploy.cli.console import progress_of, show_result
from deploy.cli.environment import Data, settings_of
from deploy.cli.exits import Exit
from shared.settings import SettingsWithoutHints

#: Lines of each kind that are printed without `--json`.
_SHOWN = 20


def fsck(
    delete: Annotated[bool, typer.Option("--delete", help="Delete objects that no row refers to.")] = False,
    repair: Annotated[bool, typer.Option("--repair", help="Have missing renditions made again.")] = False,
    older_than: Annotated[
        float, typer.Option("--older-than", min=0, metavar="HOURS", help="Leave younger objects alone.")
    ] = 24.0,
    data: Data = None,
) -> None:
    """Compare the object store with the database. Without `--delete` and `--repair` nothing is changed.

    Lists originals, renditions and trainings' event files that no row refers to, and rows whose object is missing. All
    processes may work meanwhile. Ends with exit code 1 if anything is left to do.
    """
    # Clients of the servers, which every other command would have to wait for.
    from shared.access.audit import CLI, record
    from shared.database import Database
    from shared.erasure.reconciliation import PARTS, Missing, Reconciliation
    from shared.object_store import ObjectStore, StoredObject

    settings = settings_of(data, SettingsWithoutHints)
    database, store = Database.from_settings(settings), ObjectStore(settings)
    unused: list[StoredObject] = []
    missing: list[Missing] = []
    objects = 0
    try:
        work = Reconciliation(database, store, timedelta(hours=older_than))
        with _progress() as progress:
            for part in progress.track(PARTS, description="checking"):
                found = work.check(part)
                objects += found.objects
                unused += found.unused
                missing += found.missing
            for each in progress.track(unused if delete else [], description="deleting"):
                work.remove(each.key)
            repaired = [
                row for row in progress.track(missing if repair else [], description="repairing") if work.repair(row)
            ]
        deleted = len(unused) if delete else 0
        if deleted or repaired:
            with database.begin() as session:
                subject = {"deleted": deleted, "repaired": len(repaired)}
                record(session, action="fsck", subject=subject, actor=CLI)
    finally:
        store.close()
        database.close()
    left = len(unused) - deleted + len(missing) - len(repaired)
    value = {
        "objects": objects,
        "unused": [{"key": each.key, "byte_count": each.byte_count} for each in unused],
        "missing": [
            {"table": row.table, "id": row.id, "key": row.key, "repairable": row.repairable} for row in missing
        ],
        "deleted": deleted,
        "repaired": len(repaired),
    }
    byte_count = sum(each.byte_count for each in unused)
    counts = f"{objects:,} objects: {len(unused):,} unused ({byte_count:,} bytes), {len(missing):,} missing"
    lines = [
        *_some([f"unused   {each.key} ({each.byte_count:,} bytes)" for each in unused]),
        *_some([f"missing  {row.key} of {row.table} {row.id}" for row in missing]),
        f"{counts}; {deleted:,} deleted, {len(repaired):,} repaired",
    ]
    if unused and not delete:
        lines.append("`carina fsck --delete` deletes unused objects.")
    if any(row.repairable for row in missing) and not repair:
        lines.append("`carina fsck --repair` has missing renditions made again.")
    if any(not row.repairable for row in missing):
        lines.append(
            "Other missing objects can only come from a backup: `carina restore`, or copy them into the bucket."
        )
    show_result(value, *lines)
    if left:
        raise typer.Exit(Exit.FAILED)


def _some(lines: list[str]) -> list[str]:
    more = len(lines) - _SHOWN
    return [*lines[:_SHOWN], *([f"… and {more:,} more; `--json` lists all."] if more > 0 else [])]


def _progress() -> Progress:
    return progress_of(TextColumn("{task.description:<10}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
