"""Restores a backup into an empty installation: first the objects, then the rows in one transaction.

An interrupted restore can be started again. Work that was under way is given back, because its workers are gone.
"""

from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session

from deploy.backup.folder import BackupDamaged, BackupFolder, Manifest, StoredFile, digest_of
from deploy.backup.making import THREADS, OnProgress
from deploy.backup.programs import load
from shared import migrations
from shared.access.audit import CLI, record
from shared.database import Database
from shared.errors import CarinaError
from shared.leases import leased_tables
from shared.object_store import PART_BYTES, ObjectStore, checkpoint_key
from shared.object_store.checked_stream import CheckedStream
from shared.settings import Settings
from shared.tables import TrainingRun, Worker

_TABLES = sa.text(
    "SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
    " WHERE c.relkind IN ('r', 'p') AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\\_%'"
)


class InstallationNotEmpty(CarinaError):
    """A backup is restored into an empty database and an empty bucket only."""

    code = "installation_not_empty"


class BackupNewer(CarinaError):
    """A newer version of Carina made the backup. Restore it with that version."""

    code = "backup_newer"


@dataclass(frozen=True)
class Restored:
    """A backup that was restored, and the number of leases that were returned."""

    manifest: Manifest
    leases: int


def restore(settings: Settings, folder: BackupFolder, on_progress: OnProgress) -> Restored:
    """Restore the backup in a held folder; raise `InstallationNotEmpty`, `BackupNewer` and `BackupDamaged`."""
    manifest = folder.read()
    files = folder.files(manifest)
    if not (folder.path / manifest.dump).is_file():
        raise BackupDamaged(f"{folder.path / manifest.dump} is missing.")
    if not migrations.knows(manifest.revision):
        raise BackupNewer(f"Carina {manifest.code_version} made the backup; restore it with that version.")
    database, store = Database.from_settings(settings), ObjectStore(settings)
    try:
        with database.begin() as session:
            if session.scalar(_TABLES):
                raise InstallationNotEmpty("The database has tables: restore into an empty one.")
        store.ensure_bucket()
        _put_all(store, folder, files, on_progress)
        on_progress("database", 0, None)
        load(settings, folder.path / manifest.dump)
        migrations.upgrade(database)
        with database.begin() as session:
            leases = _return_leases(session)
            _forget_checkpoints(session, {file.key for file in files})
            record(session, action="restore", subject={"objects": len(files)}, actor=CLI)
        return Restored(manifest, leases)
    finally:
        store.close()
        database.close()


def _put_all(store: ObjectStore, folder: BackupFolder, files: list[StoredFile], on_progress: OnProgress) -> None:
    sizes = {file.key: file.byte_count for file in files}
    present = {found.key: found.byte_count for found in store.objects("")}
    present.pop("incoming/access-check", None)
    if others := present.keys() - sizes.keys():
        raise InstallationNotEmpty(f"The bucket has {len(others)} other objects: restore into an empty one.")
    wanted = [file for file in files if digest_of(file.key) is None or present.get(file.key) != file.byte_count]
    total = sum(file.byte_count for file in wanted)
    on_progress("objects", 0, total)

    def put(file: StoredFile) -> None:
        with closing(_read(folder, file)) as parts:
            if file.byte_count <= PART_BYTES:
                store.put(file.key, b"".join(parts))
            else:
                store.put_parts(file.key, parts)
        on_progress("objects", file.byte_count, total)

    with ThreadPoolExecutor(THREADS) as threads:
        for _ in threads.map(put, wanted):
            pass


def _read(folder: BackupFolder, file: StoredFile) -> Generator[bytes]:
    """Yield the parts of a file of the backup; raise `BackupDamaged` before its last part if it has changed."""
    path = folder.path_of(file.key)
    try:
        with path.open("rb") as opened:
            chunks = iter(lambda: opened.read(PART_BYTES), b"")
            yield from CheckedStream(chunks, byte_count=file.byte_count, sha256=digest_of(file.key))
    except FileNotFoundError:
        raise BackupDamaged(f"{path} is missing.") from None
    except CarinaError as exc:
        raise BackupDamaged(f"{path} has changed since the backup.") from exc


def _return_leases(session: Session) -> int:
    """Let all leases expire now, without counting their attempts: the next sweep gives the work back."""
    count = 0
    for table in leased_tables():
        held = sa.update(table).where(table.lease_owner.is_not(None))
        held = held.values(lease_expires_at=sa.func.now(), attempt=sa.func.greatest(table.attempt - 1, 0))
        count += len(session.scalars(held.returning(table.attempt)).all())
    session.execute(sa.update(Worker).where(Worker.stopped_at.is_(None)).values(stopped_at=sa.func.now()))
    return count


def _forget_checkpoints(session: Session, keys: set[str]) -> None:
    """Let trainings whose checkpoint is not in the backup begin again."""
    for run in session.scalars(sa.select(TrainingRun).where(TrainingRun.checkpoint_sha256.is_not(None))):
        if checkpoint_key(run.id, run.checkpoint_sha256 or "") not in keys:
            run.checkpoint_sha256 = run.checkpoint_steps = None
        if run.best_checkpoint and checkpoint_key(run.id, run.best_checkpoint["sha256"]) not in keys:
            run.best_checkpoint = None
