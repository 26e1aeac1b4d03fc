"""Lists the bucket of a submission page by page, and adds the keys as files of the submission."""

import threading
from uuid import UUID

import sqlalchemy as sa
import structlog
from sqlalchemy.orm import Session

from shared.database import Database
from shared.errors import CarinaError
from shared.object_store.incoming import Incoming
from shared.queue.files import is_listing
from shared.queue.hints import Hints
from shared.settings import Settings
from shared.submissions.progress import allocate, close, settle
from shared.tables import Submission, SubmissionFile
from shared.vocabulary.states import FileState, WorkerKind

log = structlog.get_logger()

PAGE_KEYS = 1000
#: The namespace of these advisory locks.
_LOCK = 4_101


class BucketListing:
    """Lists the buckets of submissions. A lock lets only one process at a time list a submission."""

    def __init__(
        self, settings: Settings, database: Database, incoming: Incoming, hints: Hints, stop: threading.Event
    ) -> None:
        self._settings = settings
        self._database = database
        self._incoming = incoming
        self._hints = hints
        self._stop = stop

    def run(self) -> None:
        """List all submissions that no other process lists, until the stop flag is set."""
        try:
            with self._database.begin() as session:
                by_priority = sa.select(Submission.id).where(is_listing())
                submissions = session.scalars(by_priority.order_by(Submission.priority.desc(), Submission.id)).all()
        except CarinaError as error:
            log.warning("listing_failed", code=error.code)
            return
        for submission_id in submissions:
            try:
                while not self._stop.is_set() and self._list_page(submission_id):
                    pass
            except CarinaError as error:
                # It is tried again at the next call. A submission whose bucket was deleted must be cancelled.
                log.warning("listing_failed", submission_id=str(submission_id), code=error.code, detail=error.detail)

    def _list_page(self, submission_id: UUID) -> bool:
        """Add rows for the next page of keys, in one transaction; return whether there are more pages."""
        with self._database.begin() as session:
            # A lock on the row would block a cancellation for as long as the object store takes.
            lock = sa.func.pg_try_advisory_xact_lock(_LOCK, submission_id.int & 0x7FFFFFFF)
            if not session.scalar(sa.select(lock)):
                return False
            submission = session.get_one(Submission, submission_id)
            assert submission.source_bucket is not None
            keys, more = self._incoming.list_page(
                submission.source_bucket,
                submission.source_prefix or "",
                after=submission.listed_to,
                limit=PAGE_KEYS,
            )
            still = sa.select(Submission.id).where(Submission.id == submission_id, is_listing())
            if session.scalar(still.with_for_update(key_share=True)) is None:
                return False
            count = self._add_files(session, submission, [key for key in keys if not key.endswith("/")])
            # A key may contain a patient's name, so the last one is cleared at the end.
            listed_to = keys[-1] if more else None
            session.execute(sa.update(Submission).where(Submission.id == submission_id).values(listed_to=listed_to))
            if not more:
                close(session, submission_id)
        log.info("keys_listed", submission_id=str(submission_id), count=count, more=more)
        self._hints.send(WorkerKind.INTAKE, count)
        if not more:
            with self._database.begin() as session:
                settle(session, submission_id)  # the bucket may be empty
        return more

    def _add_files(self, session: Session, submission: Submission, keys: list[str]) -> int:
        first = allocate(session, submission.id, len(keys))
        named = self._settings.deidentify == "off"
        rows = [
            {
                "submission_id": submission.id,
                "number": number,
                "name": key.rpartition("/")[2] if named else None,
                "state": FileState.ARRIVED,
                "priority": submission.priority,
                "source_key": key,
            }
            for number, key in enumerate(keys, start=first)
        ]
        if rows:
            session.execute(sa.insert(SubmissionFile), rows)
        return len(rows)
