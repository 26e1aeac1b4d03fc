"""The hourly cleanup: abandoned uploads and checkpoints, unused objects, old answers, sessions, data by its age."""

import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import TypeVar
from uuid import UUID

import sqlalchemy as sa
import structlog

from shared.access.console_sessions import SESSION
from shared.database import Database
from shared.erasure.reconciliation import Reconciliation
from shared.erasure.retention import AT_A_TIME, delete_some, is_older
from shared.errors import CarinaError
from shared.object_store.incoming import INCOMING, Incoming
from shared.settings import Settings
from shared.submissions.progress import incoming_key
from shared.tables import ConsoleSession, IdempotencyKey, SubmissionFile
from shared.training.checkpoints import CHECKPOINTS, unneeded
from shared.vocabulary.states import FileState
from workers.retention import RetentionRun

log = structlog.get_logger()

#: Seconds between two cleanups of a process.
INTERVAL_S = 3600.0
#: Seconds until the next cleanup if this one had not enough time.
_GOES_ON_AFTER_S = 60.0
#: How long an `Idempotency-Key` is remembered.
ANSWERS_KEPT = timedelta(hours=48)

#: The bucket is checked for unused objects once in so many hours, a part of it in each.
_ROUND_H = 24
_LOCK = 4_102
_AT_A_TIME = 1000

Item = TypeVar("Item")


class Cleanup:
    """Deletes data that is no longer needed: each process once an hour, and only one process at a time."""

    def __init__(self, settings: Settings, database: Database, incoming: Incoming) -> None:
        self._settings = settings
        self._database = database
        self._incoming = incoming
        self._next_at = 0.0

    def run_when_due(self) -> None:
        """Run if the last run was an hour ago. A failed step is tried again at the next run."""
        if time.monotonic() < self._next_at:
            return
        self._next_at = time.monotonic() + INTERVAL_S
        try:
            with self._database.begin() as session:
                if session.scalar(sa.select(sa.func.pg_try_advisory_xact_lock(_LOCK, 0))):
                    self.run()
        except CarinaError as error:
            log.warning("garbage_not_collected", code=error.code)

    def run(self) -> None:
        """Run all steps. Can be interrupted at any time."""
        steps: tuple[Callable[[], int], ...] = (
            self._uploads,
            self._parts,
            self._checkpoints,
            self._unused,
            self._answers,
            self._sessions,
        )
        counts = {}
        for step in steps:
            name = step.__name__.strip("_")
            try:
                counts[name] = step()
            except CarinaError as error:  # other steps still run, for example without the permission to list a bucket
                log.warning("garbage_not_collected", step=name, code=error.code, detail=error.detail)
        try:
            retention = RetentionRun(self._settings, self._database, self._incoming)
            counts |= retention.run()
            if retention.is_cut_short:
                self._next_at = time.monotonic() + _GOES_ON_AFTER_S
        except CarinaError as error:
            log.warning("garbage_not_collected", step="retention", code=error.code, detail=error.detail)
        if any(counts.values()):
            log.info("garbage_collected", **counts)

    def _uploads(self) -> int:
        """Delete old objects of clients and of interrupted streams that no open file needs; return how many."""
        old = (found.key for found in self._incoming.objects(INCOMING) if self._is_old(found.written_at))
        count = 0
        for keys in _batches(old):
            for key in keys - self._wanted(keys):
                self._incoming.delete(key)
                count += 1
        return count

    def _parts(self) -> int:
        """Delete old multipart uploads that no open file needs; return how many."""
        old = (upload for upload in self._incoming.unfinished_uploads() if self._is_old(upload.initiated_at))
        count = 0
        for uploads in _batches(old):
            wanted = self._wanted({upload.key for upload in uploads})
            for upload in uploads:
                if upload.key.startswith(INCOMING) and upload.key not in wanted:
                    self._incoming.abort_upload(upload.key, upload.upload_id)
                    count += 1
        return count

    def _checkpoints(self) -> int:
        """Delete checkpoints that ended trainings no longer need; return how many."""
        count = 0
        stored = (key for key in self._incoming.keys(CHECKPOINTS) if _uuid(key.split("/")[1]))
        for keys in _batches(stored):
            with self._database.begin() as session:
                found = unneeded(session, keys, days=self._settings.checkpoint_days)
            for key in found:
                self._incoming.delete(key)
            count += len(found)
        return count

    def _unused(self) -> int:
        """Delete objects that no row refers to, in this hour's part of the keys; return how many."""
        reconciliation = Reconciliation(self._database, self._incoming)
        hour = int(time.time() // INTERVAL_S)
        count = 0
        for number in range(hour % _ROUND_H, 256, _ROUND_H):
            for folder in ("originals", "renditions", "results"):
                for found in reconciliation.find_unused(f"{folder}/{number:02x}/"):
                    reconciliation.remove(found.key)
                    count += 1
        return count

    def _answers(self) -> int:
        return self._delete_older(IdempotencyKey, ANSWERS_KEPT)

    def _sessions(self) -> int:
        return self._delete_older(ConsoleSession, SESSION)

    def _delete_older(self, table: type[IdempotencyKey | ConsoleSession], age: timedelta) -> int:
        count = 0
        while True:
            with self._database.begin() as session:
                deleted = delete_some(session, table.id, is_older(table.created_at, age))
            count += deleted
            if deleted < AT_A_TIME:
                return count

    def _wanted(self, keys: set[str]) -> set[str]:
        """Return those of these keys that belong to an open file."""
        names = [key.removeprefix(INCOMING).partition("/") for key in keys]
        files = [(_uuid(first), int(last)) for first, _, last in names if last.isdecimal() and _uuid(first)]
        open_files = sa.select(SubmissionFile.submission_id, SubmissionFile.number).where(
            sa.tuple_(SubmissionFile.submission_id, SubmissionFile.number).in_(files),
            SubmissionFile.state.in_(FileState.open()),
        )
        with self._database.begin() as session:
            found = session.execute(open_files).all() if files else []
        return {incoming_key(submission_id, number) for submission_id, number in found}

    def _is_old(self, since: datetime) -> bool:
        return since < datetime.now(UTC) - timedelta(hours=self._settings.upload_expires_h)


def _batches(items: Iterable[Item]) -> Iterator[set[Item]]:
    iterator = iter(items)
    while batch := set(islice(iterator, _AT_A_TIME)):
        yield batch


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
