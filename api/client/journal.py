"""The journal of a submission's files, an SQLite file from which an interrupted submission continues."""

import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Self
from uuid import UUID, uuid4

from shared.errors import CarinaError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS submission (key TEXT NOT NULL, id TEXT, is_sent INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS file (
    path BLOB NOT NULL, byte_count INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, sha256 TEXT, name TEXT NOT NULL,
    page TEXT, number INTEGER UNIQUE, state TEXT NOT NULL, reason TEXT
);
CREATE INDEX IF NOT EXISTS file_path ON file (path);
CREATE INDEX IF NOT EXISTS file_page ON file (page);
CREATE INDEX IF NOT EXISTS file_open ON file (state) WHERE state <> 'done';
"""
_FIELDS = "path, byte_count, mtime_ns, sha256, name, number, state, reason"


class SubmissionUnderWay(CarinaError):
    """Another process is sending the same files. Wait until it has finished."""

    code = "submission_under_way"


class JournalUnusable(CarinaError):
    """The file that records the progress of a submission cannot be used."""

    code = "journal_unusable"


@dataclass(frozen=True)
class LocalFile:
    """A file, with the size and the time that it had."""

    path: Path
    byte_count: int
    mtime_ns: int
    sha256: str = ""
    name: str = ""
    #: The file's number in the submission; None until the server has given one.
    number: int | None = None
    #: hashed, announced, uploaded (not reported to the server yet), done, or the code of the error.
    state: str = "hashed"
    reason: str | None = None

    @classmethod
    def at(cls, path: Path) -> Self:
        """Read the file's size and time; raises `OSError`."""
        stat = path.stat()
        return cls(path, stat.st_size, stat.st_mtime_ns)

    def is_as_it_was(self) -> bool:
        """Whether the file still has this size and time."""
        try:
            now = LocalFile.at(self.path)
        except OSError:
            return False
        return (now.byte_count, now.mtime_ns) == (self.byte_count, self.mtime_ns)


class Journal:
    """The files of one submission. Safe to share between threads; only one process can open it.

    A process may be killed at any line. The journal is written before each request, so that the next process can repeat
    the request.
    """

    def __init__(self, path: Path | None = None) -> None:
        """Open or create a journal; without a path it lasts as long as the object.

        Raises `SubmissionUnderWay` and, as every method, `JournalUnusable`.
        """
        self._path = path
        self._lock = threading.Lock()
        if path is not None:
            try:
                path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            except OSError as exc:
                raise self._unusable(exc.strerror) from exc
        with self._translated():
            # "" is a temporary file of SQLite's own, which stays in memory while it is small.
            self._db = sqlite3.connect(path or "", isolation_level=None, check_same_thread=False, timeout=1)
        with self._translated(), _closed_on_error(self._db):
            # The first write locks the file until the process ends. After a power cut the last writes may be lost.
            self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._db.executescript(_SCHEMA)
            if self._one("SELECT count(*) FROM submission") == 0:
                self._write("INSERT INTO submission (key) VALUES (?)", str(uuid4()))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def remove(self) -> None:
        """Delete the journal."""
        self.close()
        if self._path is not None:
            for suffix in ("", "-wal", "-shm"):
                Path(f"{self._path}{suffix}").unlink(missing_ok=True)

    def reset(self) -> None:
        """Start with another submission."""
        with self._translated():
            self._db.executescript("DELETE FROM file; DELETE FROM submission;")
        self._write("INSERT INTO submission (key) VALUES (?)", str(uuid4()))

    @property
    def key(self) -> str:
        """The idempotency key of the request that creates the submission."""
        return str(self._one("SELECT key FROM submission"))

    @property
    def submission_id(self) -> UUID | None:
        """The submission, once it is created."""
        found = self._one("SELECT id FROM submission")
        return UUID(str(found)) if found else None

    @submission_id.setter
    def submission_id(self, submission_id: UUID) -> None:
        self._write("UPDATE submission SET id = ?", str(submission_id))

    @property
    def is_sent(self) -> bool:
        """Whether all files were sent, so that the submission may be closed."""
        return bool(self._one("SELECT is_sent FROM submission"))

    @is_sent.setter
    def is_sent(self, is_sent: bool) -> None:
        self._write("UPDATE submission SET is_sent = ?", is_sent)

    def done(self) -> tuple[int, int]:
        """Return the number and the bytes of the files that need not be sent again."""
        counted = "SELECT count(*), coalesce(sum(byte_count), 0) FROM file WHERE state IN ('uploaded', 'done')"
        [(files, byte_count)] = self._rows(counted)
        return int(str(files)), int(str(byte_count))

    def knows(self, file: LocalFile) -> bool:
        """Whether the journal knows the file with this size and time."""
        row = self._one(
            "SELECT 1 FROM file WHERE path = ? AND byte_count = ? AND mtime_ns = ? AND number IS NOT NULL",
            os.fsencode(file.path),
            file.byte_count,
            file.mtime_ns,
        )
        return row is not None

    def add_page(self, key: str, files: Iterable[LocalFile]) -> None:
        """Add files that are about to be announced together under an idempotency key."""
        rows = [
            (os.fsencode(file.path), file.byte_count, file.mtime_ns, file.sha256, file.name, key, file.state)
            for file in files
        ]
        with self._translated(), self._lock, self._db:
            self._db.execute("BEGIN")
            self._db.executemany(
                "INSERT INTO file (path, byte_count, mtime_ns, sha256, name, page, state) VALUES (?, ?, ?, ?, ?, ?, ?)",
                rows,
            )

    def number_page(self, key: str, numbers: Sequence[int]) -> None:
        """Store the numbers that the server gave to the files of a page."""
        with self._translated(), self._lock, self._db:
            self._db.execute("BEGIN")
            rows = self._db.execute("SELECT rowid FROM file WHERE page = ? ORDER BY rowid", [key]).fetchall()
            self._db.executemany(
                "UPDATE file SET number = ?, state = 'announced' WHERE rowid = ?",
                [(number, rowid) for number, (rowid,) in zip(numbers, rows, strict=True)],
            )

    def pages_without_numbers(self) -> list[tuple[str, list[LocalFile]]]:
        """Return the pages that an earlier process was about to announce."""
        rows = self._rows("SELECT page, " + _FIELDS + " FROM file WHERE state = 'hashed' ORDER BY rowid")
        return [(key, [_file(row[1:]) for row in page]) for key, page in groupby(rows, key=lambda row: str(row[0]))]

    def mark(self, numbers: Iterable[int], state: str, reason: str | None = None) -> None:
        """Store the state of these files."""
        with self._translated(), self._lock, self._db:
            self._db.execute("BEGIN")
            self._db.executemany(
                "UPDATE file SET state = ?, reason = ? WHERE number = ?",
                [(state, reason, number) for number in numbers],
            )

    def add_unreadable(self, path: Path, code: str, reason: str) -> None:
        """Add a file that cannot be announced."""
        self._write(
            "INSERT INTO file (path, byte_count, mtime_ns, name, state, reason) VALUES (?, 0, 0, '', ?, ?)",
            os.fsencode(path),
            code,
            reason,
        )

    def forget_unreadable(self) -> None:
        """Remove the files that could not be announced, so that they are tried again."""
        self._write("DELETE FROM file WHERE number IS NULL AND state <> 'hashed'")

    def unreadable(self) -> Iterator[LocalFile]:
        """Yield the files that were not announced."""
        return map(_file, self._rows(f"SELECT {_FIELDS} FROM file WHERE number IS NULL AND state <> 'hashed'"))

    def has_open(self) -> bool:
        """Whether announced files are still to be uploaded."""
        left = "SELECT 1 FROM file WHERE number IS NOT NULL AND state NOT IN ('uploaded', 'done')"
        return bool(self._one(f"SELECT EXISTS ({left})"))

    def uploaded(self) -> list[int]:
        """Return the numbers of uploaded files that are not reported to the server yet."""
        return [int(str(row[0])) for row in self._rows("SELECT number FROM file WHERE state = 'uploaded'")]

    def file(self, number: int) -> LocalFile | None:
        """Return the file of a number."""
        rows = self._rows(f"SELECT {_FIELDS} FROM file WHERE number = ?", number)
        return _file(rows[0]) if rows else None

    def _one(self, statement: str, *values: object) -> object:
        rows = self._rows(statement, *values)
        return rows[0][0] if rows else None

    def _rows(self, statement: str, *values: object) -> list[tuple[object, ...]]:
        with self._translated(), self._lock:
            return self._db.execute(statement, values).fetchall()

    def _write(self, statement: str, *values: object) -> None:
        with self._translated(), self._lock:
            self._db.execute(statement, values)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as exc:
            if getattr(exc, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise SubmissionUnderWay from exc
            raise self._unusable(str(exc)) from exc

    def _unusable(self, reason: str | None) -> JournalUnusable:
        return JournalUnusable(
            f"The journal of this submission, {self._path or 'a temporary file'}, cannot be used: {reason}. "
            "Set XDG_STATE_HOME to a folder that can be written to."
        )


@contextmanager
def _closed_on_error(db: sqlite3.Connection) -> Iterator[None]:
    try:
        yield
    except BaseException:
        db.close()
        raise


def _file(row: Sequence[object]) -> LocalFile:
    path, *fields = row
    return LocalFile(Path(os.fsdecode(path)), *fields)  # type: ignore[arg-type]
