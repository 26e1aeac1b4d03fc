"""The intake worker: checks and receives the uploaded files of submissions, and unpacks archives.

A file becomes final, and an archive's entry gets its row, in the transaction that creates its image and job. So after
this process was killed, another worker sees which files and entries are done, and receives none twice.
"""

import io
import threading
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from typing import Any
from uuid import UUID

import sqlalchemy as sa
import structlog
from sqlalchemy.orm import Session

from shared.access.quotas import QuotaExceeded, seconds_to_midnight
from shared.database import Database
from shared.database.notices import notify
from shared.errors import (
    CarinaError,
    DatabaseUnavailable,
    FileTooLarge,
    NotUploaded,
    ObjectMissing,
    PermanentError,
    SizeMismatch,
    UploadError,
)
from shared.intake.acceptance import accept
from shared.intake.archives import ArchiveError, ArchiveKind, Entry, Limits, unpack
from shared.intake.receive import Intake, Received
from shared.leases import reason_of, release
from shared.object_store import PART_BYTES
from shared.object_store.checked_stream import CheckedStream
from shared.object_store.incoming import Incoming, IncomingFile, SeekableFile
from shared.processes.loops import watched
from shared.queue.files import FileClaim, claim_files, finish_file, give_up_or_retry_file, holds_file
from shared.queue.hints import Hints
from shared.settings import Settings
from shared.submissions.progress import allocate, incoming_key, settle
from shared.tables import SubmissionFile
from shared.vocabulary.states import FileState, WorkerKind
from workers.bucket_listing import BucketListing
from workers.failures import to_carina_error
from workers.heartbeat import Heartbeat
from workers.process import WorkerProcess

log = structlog.get_logger()

#: Seconds between two claims while files are in progress: an archive may take hours.
LOOK_S = 1.0
#: The number of entries of an archive after which hints are sent to the prepare workers.
HINT_AFTER = 16


def run(settings: Settings) -> None:
    """Receive the files of submissions until SIGTERM."""
    with WorkerProcess(settings, WorkerKind.INTAKE, stuck_after_s=settings.step_timeout_s) as process:
        receive = IntakeWorker(
            settings,
            process.database,
            Incoming(settings),
            process.hints,
            process.heartbeat,
            process.stop,
        )
        process.serve(receive.run)


class LeaseLostError(Exception):
    """The file was cancelled, or another worker holds its lease."""


class StoppedError(Exception):
    """The worker was asked to stop before the file was done."""


class IntakeWorker:
    """Receives uploaded files, several at a time."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        incoming: Incoming,
        hints: Hints,
        heartbeat: Heartbeat,
        stop: threading.Event,
    ) -> None:
        self._settings = settings
        self._database = database
        self._incoming = incoming
        self._hints = hints
        self._heartbeat = heartbeat
        self._stop = stop
        self._listing = BucketListing(settings, database, incoming, hints, stop)
        self._threads = ThreadPoolExecutor(settings.intake_threads, thread_name_prefix="intake")
        self._limits = Limits(
            entries=settings.max_archive_entries,
            unpacked_bytes=settings.max_archive_bytes,
            ratio=settings.max_archive_ratio,
        )

    def run(self) -> None:
        """Receive files until none is left or the stop flag is set, which lets files finish but interrupts archives."""
        running: set[Future[None]] = {watched(self._threads.submit(self._listing.run))}
        touched: set[UUID] = set()
        while True:
            claims = self._claim(self._settings.intake_threads - len(running))
            running |= {watched(self._threads.submit(self._take, claimed)) for claimed in claims}
            touched |= {claimed.submission_id for claimed in claims}
            if not running:
                self._settle(touched)
                return
            done, running = wait(running, timeout=LOOK_S, return_when=FIRST_COMPLETED)
            if not done:
                running.add(watched(self._threads.submit(self._listing.run)))

    def _claim(self, limit: int) -> list[FileClaim]:
        if self._stop.is_set() or limit <= 0:
            return []
        owner, lease_s = self._heartbeat.owner, self._settings.lease_s
        try:
            with self._database.begin() as session:
                claims = claim_files(session, owner, limit=limit, lease_s=lease_s)
        except CarinaError as error:
            log.warning("claim_failed", stage="intake", code=error.code)
            return []
        self._heartbeat.hold(claims)
        return claims

    def _settle(self, submissions: set[UUID]) -> None:
        for submission_id in submissions:
            with suppress(DatabaseUnavailable), self._database.begin() as session:
                settle(session, submission_id)

    def _take(self, claim: FileClaim) -> None:
        try:
            state = self._take_in(claim)
            log.info("file_taken", **_about(claim), state=state)
        except LeaseLostError:
            log.info("result_dropped", **_about(claim))
        except StoppedError:
            self._put_aside(claim)
        except QuotaExceeded as exc:
            self._wait_for_quota(claim, exc)
        except Exception as exc:  # noqa: BLE001 - the worker's loop: an error is a file's, never the worker's
            self._record_failure(claim, to_carina_error(exc))
        finally:
            self._heartbeat.drop([claim])

    def _take_in(self, claim: FileClaim) -> FileState:
        with self._open(claim) as file:
            if claim.byte_count not in (None, file.byte_count):
                raise SizeMismatch
            stream = CheckedStream(file.chunks(), sha256=claim.sha256, on_chunk=self._heartbeat.mark_progress)
            intake = self._intake(claim)
            try:
                state = accept(
                    stream,
                    intake,
                    file_bytes=file.byte_count,
                    max_bytes=self._settings.max_upload_bytes,
                    finish=lambda session, received: _finish(session, claim, stream, received),
                    take_archive=lambda kind: self._unpack(claim, intake, file, kind, stream),
                    read_on=lambda: self._read_on(claim, stream),
                )
            finally:
                intake.send_hints()
        self._discard(claim)
        return state

    def _open(self, claim: FileClaim) -> IncomingFile:
        if claim.source_key is not None:
            return self._incoming.open(claim.source_key, bucket=claim.source_bucket)
        key = incoming_key(claim.submission_id, claim.number)
        if claim.upload_id is not None and not self._incoming.has(key):
            self._complete_upload(claim, key, claim.upload_id)
        return self._incoming.open(key)

    def _complete_upload(self, claim: FileClaim, key: str, upload_id: str) -> None:
        """Create an object from the parts of an upload; raise `NotUploaded` if parts are missing so far."""
        try:
            arrived = sum(self._incoming.uploaded_parts(key, upload_id).values())
        except ObjectMissing:
            return  # already completed, or never begun: opening the object will show which
        if arrived != claim.byte_count:
            raise NotUploaded("Not all parts of the file have arrived.")
        self._incoming.complete_upload(key, upload_id)

    def _read_on(self, claim: FileClaim, stream: CheckedStream) -> None:
        """If a digest was announced, read to the end, where it is compared."""
        for _ in stream if claim.sha256 is not None else ():
            if self._stop.is_set():
                raise StoppedError

    def _intake(self, claim: FileClaim) -> Intake:
        return Intake(
            self._settings,
            self._database,
            self._incoming,
            self._hints,
            claim.project_id,
            priority=claim.priority,
            model_id=claim.model_id,
            submission_id=claim.submission_id,
            key_id=claim.key_id,
        )

    # --- an archive --------------------------------------------------------------------------------------------------

    def _unpack(
        self, claim: FileClaim, intake: Intake, file: IncomingFile, kind: ArchiveKind, stream: CheckedStream
    ) -> FileState:
        """Receive the entries that have no row yet."""
        self._read_on(claim, stream)
        of_this = (SubmissionFile.submission_id == claim.submission_id, SubmissionFile.archive_number == claim.number)
        with self._database.begin() as session:
            taken = set(session.scalars(sa.select(SubmissionFile.entry_number).where(*of_this)))
        source = io.BufferedReader(SeekableFile(file), PART_BYTES)
        for entry in unpack(source, kind, file.byte_count, self._limits):
            self._heartbeat.mark_progress()
            if self._stop.is_set():
                raise StoppedError
            if entry.number not in taken:
                self._take_entry(claim, intake, entry)
            if entry.number % HINT_AFTER == 0:
                intake.send_hints()

        def finish(session: Session) -> bool:
            return finish_file(session, claim, FileState.UNPACKED)

        if not self._database.persist(finish, within_s=self._settings.lease_s / 2):
            raise LeaseLostError
        return FileState.UNPACKED

    def _take_entry(self, claim: FileClaim, intake: Intake, entry: Entry) -> None:
        stream = CheckedStream(entry.chunks, on_chunk=self._heartbeat.mark_progress)

        def add(session: Session, received: Received) -> None:
            _add_entry(session, claim, entry, FileState(received.outcome), **_columns(stream, received))

        try:
            if entry.byte_count > self._settings.max_upload_bytes:
                raise FileTooLarge
            intake.receive(stream, also=add)
        except ArchiveError:
            raise
        except PermanentError as error:
            with self._database.begin() as session:
                _add_entry(session, claim, entry, FileState.REJECTED, code=error.code, reason=error.detail)

    # --- its end -----------------------------------------------------------------------------------------------------

    def _discard(self, claim: FileClaim) -> None:
        """Delete an upload that is no longer needed. If that fails, the cleanup does it later."""
        if claim.source_key is None:
            with suppress(CarinaError):
                self._incoming.delete(incoming_key(claim.submission_id, claim.number))

    def _record_failure(self, claim: FileClaim, error: CarinaError) -> None:
        """Commit the file's new state after an error."""
        settings = self._settings
        if isinstance(error, UploadError):
            # Delete it before the file can be sent again. Otherwise the new upload could be deleted.
            self._discard(claim)

        def commit(session: Session) -> FileState | None:
            return give_up_or_retry_file(
                session, claim, error, max_attempts=settings.max_attempts, backoff_s=settings.retry_backoff_s
            )

        try:
            state = self._database.persist(commit, within_s=settings.lease_s / 2)
        except DatabaseUnavailable:
            log.warning("verdict_not_committed", **_about(claim), code=error.code, detail=error.detail)
            return
        if state is FileState.REJECTED:
            self._discard(claim)
        log.info(
            "file_set_back",
            **_about(claim),
            state=state,
            code=error.code,
            detail=error.detail,
            attempt=claim.attempt,
        )

    def _wait_for_quota(self, claim: FileClaim, exceeded: QuotaExceeded) -> None:
        """Release a file, or the rest of an archive, until its key may send more. The upload is kept."""
        pause_s = exceeded.retry_after_s or seconds_to_midnight()
        with suppress(DatabaseUnavailable), self._database.begin() as session:
            release(session, [claim], pause_s=pause_s, **reason_of(exceeded))
        log.info("file_waits_for_quota", **_about(claim), pause_s=pause_s)

    def _put_aside(self, claim: FileClaim) -> None:
        with suppress(DatabaseUnavailable), self._database.begin() as session:
            release(session, [claim])
        log.info("file_put_aside", **_about(claim))


def _columns(stream: CheckedStream, received: Received) -> dict[str, Any]:
    """Return the columns of a file's row for its bytes, which have been read completely, and its image."""
    ids = {"image_id": received.image_id, "job_id": received.job_id}
    return {"byte_count": stream.byte_count, "sha256": stream.sha256, **ids}


def _finish(session: Session, claim: FileClaim, stream: CheckedStream, received: Received) -> None:
    if not finish_file(session, claim, FileState(received.outcome), **_columns(stream, received)):
        raise LeaseLostError


def _add_entry(session: Session, claim: FileClaim, entry: Entry, state: FileState, **values: Any) -> None:
    """Add an archive's entry to the manifest; raise `LeaseLostError` if the archive is no longer held."""
    number = allocate(session, claim.submission_id, 1)
    if not holds_file(session, claim):
        raise LeaseLostError
    session.add(
        SubmissionFile(
            submission_id=claim.submission_id,
            number=number,
            priority=claim.priority,
            archive_number=claim.number,
            entry_number=entry.number,
            state=state,
            finished_at=sa.func.now(),
            **values,
        )
    )
    notify(session, [claim.submission_id])


def _about(claim: FileClaim) -> dict[str, object]:
    return {"submission_id": str(claim.submission_id), "number": claim.number}
