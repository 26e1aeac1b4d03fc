"""The files of a backup: `backup.json`, which names the others, a dump, a list of objects, and `objects/`.

A backup is made beside the previous one, and `backup.json` is replaced at the end. So an interrupted backup leaves the
previous one whole.
"""

import fcntl
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from pydantic import BaseModel, ValidationError

from shared.errors import CarinaError

_MANIFEST = "backup.json"
#: Segments of a key that mean something else in a path.
_SPECIAL = {"": "%", ".": "%2E", "..": "%2E%2E"}
_ADDRESSED = re.compile(
    r"(?:originals|renditions|models|datasets|checkpoints|results)/(?:.*/)?([0-9a-f]{64})(?:\.\w+)?"
)


class NoBackup(CarinaError):
    """The folder has no complete backup."""

    code = "no_backup"


class BackupInUse(CarinaError):
    """Another backup or restore works in this folder. Wait until it has ended."""

    code = "backup_in_use"


class BackupDamaged(CarinaError):
    """A file of the backup is missing or has changed. Use another backup."""

    code = "backup_damaged"


class Manifest(BaseModel):
    """The content of `backup.json`."""

    format: Literal[1] = 1
    created_at: datetime
    #: The version of Carina, and of the schema in the dump.
    code_version: str
    revision: str
    #: Names of files in the folder.
    dump: str
    objects: str
    object_count: int
    byte_count: int


class StoredFile(BaseModel):
    """A line of the list of objects."""

    key: str
    byte_count: int


class BackupFolder:
    """A folder with a backup. `hold` it before anything else."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Keep other backups and restores out of the folder; raise `BackupInUse`."""
        with (self.path / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise BackupInUse from None
            yield

    def read(self) -> Manifest:
        """Return the manifest; raise `NoBackup` and `BackupDamaged`."""
        try:
            return Manifest.model_validate_json((self.path / _MANIFEST).read_bytes())
        except FileNotFoundError:
            raise NoBackup(f"{self.path} has no complete backup.") from None
        except ValidationError as exc:
            raise BackupDamaged(f"{self.path / _MANIFEST} is not the manifest of a backup.") from exc

    def files(self, manifest: Manifest) -> list[StoredFile]:
        """Return the list of objects; raise `BackupDamaged`."""
        try:
            lines = (self.path / manifest.objects).read_bytes().splitlines()
            return [StoredFile.model_validate_json(line) for line in lines]
        except (OSError, ValidationError) as exc:
            raise BackupDamaged(f"{self.path / manifest.objects} is missing or damaged.") from exc

    def path_of(self, key: str) -> Path:
        """Return the path of an object; no key leads out of the folder."""
        return self.path / "objects" / Path(*(_SPECIAL.get(part, quote(part, safe="")) for part in key.split("/")))

    def has(self, key: str, byte_count: int) -> bool:
        """Whether the folder has this object: it never changes, because its key contains its digest."""
        path = self.path_of(key)
        return digest_of(key) is not None and path.is_file() and path.stat().st_size == byte_count

    @contextmanager
    def writing(self, path: Path) -> Iterator[Path]:
        """Yield a path to write to; it becomes `path` at the end."""
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        part = path.with_name(f".{path.name[-100:]}.part")
        try:
            yield part
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)

    def complete(self, manifest: Manifest, files: Iterable[StoredFile]) -> None:
        """Make this the backup of the folder, and remove what only the previous one needs."""
        with self.writing(self.path / manifest.objects) as part, part.open("w") as lines:
            lines.writelines(f"{file.model_dump_json()}\n" for file in files)
        os.sync()
        with self.writing(self.path / _MANIFEST) as part:
            part.write_text(manifest.model_dump_json(indent=2))
        kept = {self.path_of(file.key) for file in files}
        for old in (*self.path.glob("database-*"), *self.path.glob("objects-*")):
            if old.name not in (manifest.dump, manifest.objects):
                old.unlink()
        for folder, _, names in os.walk(self.path / "objects", topdown=False):
            for name in names:
                if (path := Path(folder) / name) not in kept:
                    path.unlink()
            with suppress(OSError):  # not empty
                Path(folder).rmdir()


def digest_of(key: str) -> str | None:
    """Return the digest in the key of an object of Carina; None for uploads and for files of others."""
    found = _ADDRESSED.fullmatch(key)
    return found[1] if found else None
