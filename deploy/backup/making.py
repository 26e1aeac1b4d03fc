"""Makes a backup while all processes work: first a dump of the database, then the objects that are new.

Objects are written before their rows, so every object that a row of the dump refers to is in the bucket when the
objects are listed, unless it has been removed since. Checkpoints are removed all the time while a training goes on, so
they are copied before the dump as well.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

from deploy.backup.folder import BackupFolder, Manifest, StoredFile, digest_of
from deploy.backup.programs import dump
from shared import migrations
from shared.access.audit import CLI, record
from shared.database import Database
from shared.errors import NotUploaded, ObjectMissing, SchemaOutdated
from shared.object_store import StoredObject
from shared.object_store.incoming import Incoming
from shared.settings import Settings
from shared.version import code_version

#: Objects copied at a time.
THREADS = 8
#: Called with what is done, the bytes done now, and the bytes in all if they are known.
OnProgress = Callable[[str, int, int | None], None]
_CHECK = "incoming/access-check"


def back_up(settings: Settings, folder: BackupFolder, on_progress: OnProgress) -> Manifest:
    """Make a backup in a held folder; copy only objects that the folder lacks."""
    database, store = Database.from_settings(settings), Incoming(settings)
    created_at = datetime.now(UTC)
    name = f"{created_at:%Y%m%dT%H%M%S%fZ}"
    try:
        files = _copy_all(store, folder, store.objects("checkpoints/"), on_progress)
        on_progress("database", 0, None)
        dump_name = f"database-{name}.dump"
        with folder.writing(folder.path / dump_name) as part:
            dump(settings, part)
        revision = migrations.current(database)
        if revision is None:
            raise SchemaOutdated("The database has no tables: there is nothing to back up.")
        files |= _copy_all(store, folder, store.objects(""), on_progress)
        manifest = Manifest(
            created_at=created_at,
            code_version=code_version(),
            revision=revision,
            dump=dump_name,
            objects=f"objects-{name}.jsonl",
            object_count=len(files),
            byte_count=sum(files.values()),
        )
        folder.complete(manifest, [StoredFile(key=key, byte_count=size) for key, size in sorted(files.items())])
        with database.begin() as session:
            record(session, action="backup", subject={"objects": len(files)}, actor=CLI)
        return manifest
    finally:
        store.close()
        database.close()


def _copy_all(
    store: Incoming, folder: BackupFolder, objects: Iterable[StoredObject], on_progress: OnProgress
) -> dict[str, int]:
    """Copy the objects that the folder lacks; return the sizes of all of them by key."""
    listed = [found for found in objects if found.key != _CHECK]
    new = [found for found in listed if not folder.has(found.key, found.byte_count)]
    total = sum(found.byte_count for found in new)
    on_progress("objects", 0, total)

    def copy(found: StoredObject) -> str | None:
        try:
            _copy(store, folder, found.key)
        except (ObjectMissing, NotUploaded):  # removed since it was listed
            return found.key
        finally:
            on_progress("objects", found.byte_count, total)
        return None

    with ThreadPoolExecutor(THREADS) as threads:
        removed = set(threads.map(copy, new))
    return {found.key: folder.path_of(found.key).stat().st_size for found in listed if found.key not in removed}


def _copy(store: Incoming, folder: BackupFolder, key: str) -> None:
    sha256 = digest_of(key)
    with folder.writing(folder.path_of(key)) as part, part.open("wb") as file:
        for chunk in store.stream(key, sha256=sha256) if sha256 else store.open(key).chunks():
            file.write(chunk)
