"""Receives a file, for all ways of intake: stores its bytes in the object store, then its rows, then sends a hint.

In this order a row never names an object that does not exist. Each file is durable on its own: it stays if a later file
of the request fails, and if it is sent again it is a duplicate.
"""

import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from typing import Literal
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from shared.access.quotas import Quota, QuotaExceeded, find_quota
from shared.database import Database
from shared.erasure import discard, hold_object
from shared.erasure.patients import patient_of
from shared.errors import ImageTooLarge, InvalidUid, TransientError
from shared.imaging.element_names import name_of
from shared.imaging.header import PREFIX_BYTES, ImageHeader, read_header
from shared.models import registry
from shared.object_store import PART_BYTES, ObjectStore, original_key
from shared.object_store.checked_stream import CheckedStream
from shared.processes.scratch import spooled_file
from shared.queue.hints import Hints
from shared.queue.shared_jobs import share_jobs, shareable
from shared.settings import Settings
from shared.tables import Image, Job, Project, Study
from shared.version import RENDITION_VERSION
from shared.vocabulary.states import JobState

#: A process buffers parts of this many files in memory completely. Of all other files it buffers this many bytes in
#: memory and the rest on disk, because there may be many slow clients, which fill a part in hours.
_IN_MEMORY, _SMALL_BYTES = threading.BoundedSemaphore(32), 256 * 1024
#: Maximum bytes beside the pixels of a file that must be kept in memory.
HEADER_BYTES = 64 * 1024**2
#: Attempts to write the rows of a file while other requests create or end the job of the same image.
_TRIES = 4
#: Allows a process to de-identify one file at a time, which is in memory completely.
_deidentifying = threading.Lock()


@dataclass(frozen=True)
class _Original:
    """A file in the object store."""

    header: ImageHeader
    sha256: str
    byte_count: int
    #: The pseudonym of its patient.
    patient: str


@dataclass(frozen=True)
class Received:
    """The rows of an accepted or duplicate file, which are durable when `receive` returns."""

    outcome: Literal["accepted", "duplicate"]
    #: The header of the stored file. If that is de-identified, only `check` gets the header as sent.
    header: ImageHeader
    sha256: str
    byte_count: int
    study_id: UUID
    image_id: UUID
    job_id: UUID


class _Overtaken(TransientError, shares_code=True):
    """Another request created or ended the job of the same image first."""


#: Checks a header before anything is stored; raises a `PermanentError` if the file is unfit.
Check = Callable[[ImageHeader], None]
#: Writes more rows in the transaction of the file's rows. An error rolls back both.
Also = Callable[[Session, Received], None]


class Intake:
    """Receives files for one project, one at a time. The caller calls `send_hints` at the end, even after an error."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        store: ObjectStore,
        hints: Hints,
        project_id: UUID,
        *,
        priority: int = 5,
        model_id: UUID | None = None,
        submission_id: UUID | None = None,
        key_id: UUID | None = None,
    ) -> None:
        """Raise `NotFound` if the model does not exist. Files are charged to the quota of `key_id`, if it has one."""
        self._settings = settings
        self._database = database
        self._object_store = store
        self._hints = hints
        self._project_id = project_id
        self._priority = priority
        self._model_id = model_id
        self._submission_id = submission_id
        self._pseudonym_key: bytes | None = None
        self._quota: Quota | None = None
        self._new_jobs: list[str] = []
        if model_id is not None or key_id is not None:
            with database.begin() as session:
                if model_id is not None:
                    registry.require(session, model_id)
                if key_id is not None:
                    self._quota = find_quota(session, key_id)

    def receive(self, chunks: Iterator[bytes], *, check: Check | None = None, also: Also | None = None) -> Received:
        """Store a file and its rows.

        Raises permanent errors for an unfit file, transient errors, the errors of `chunks`, and `QuotaExceeded`, after
        which nothing of the file is kept.
        """
        stream = chunks if isinstance(chunks, CheckedStream) else CheckedStream(chunks)
        if self._quota is not None:
            self._check_quota(0)
            stream.check_at_end(self._check_quota)
        original = self._store(stream, check)
        try:
            for _ in range(_TRIES - 1):
                with suppress(IntegrityError, _Overtaken):
                    return self._record(original, also)
            return self._record(original, also)
        except QuotaExceeded:  # another file has used up the quota in the meantime
            with self._database.begin() as session:
                discard(session, original_key(original.sha256))
            raise

    def _check_quota(self, byte_count: int) -> None:
        """Raise `QuotaExceeded` if one more file of this size would exceed the quota."""
        if self._quota is not None:
            with self._database.begin() as session:
                self._quota.check(session, 1, byte_count)

    def send_hints(self) -> None:
        """Send hints for the new jobs."""
        self._hints.send_for(self._new_jobs)
        self._new_jobs.clear()

    def _store(self, stream: CheckedStream, check: Check | None) -> _Original:
        """Store a file's bytes under the key of their digest, with at most a few parts in memory."""
        store, max_image_pixels = self._object_store, self._settings.max_image_pixels
        parts = in_parts(stream)
        first = next(parts, b"")
        whole = len(first) < PART_BYTES
        # More bytes may follow a full part. Their number is not known before the end.
        total_bytes = len(first) if whole else len(first) + 1
        header = read_header(first, total_bytes, max_image_pixels=max_image_pixels)
        if header.invalid_uids:
            raise InvalidUid(
                f"{name_of(header.invalid_uids[0])} has more than 64 characters, "
                "has characters that no UID has, or begins with a dot."
            )
        if check is not None:
            check(header)
        if self._settings.deidentify == "basic":
            return self._store_deidentified(chain([first], parts))
        if whole:
            store.put(original_key(stream.sha256), first)
        else:
            store.put_stream(chain([first], parts), sha256=lambda: stream.sha256)
        return _Original(header, stream.sha256, stream.byte_count, self._find_patient(first))

    def _store_deidentified(self, parts: Iterator[bytes]) -> _Original:
        """De-identify a file and store it under the digest of the new bytes."""
        from shared.deidentification import deidentify  # imported only if needed: it takes time and memory

        max_image_pixels = self._settings.max_image_pixels
        max_bytes = 4 * max_image_pixels + HEADER_BYTES
        with spooled_file(PART_BYTES) as file:
            for part in parts:
                if file.tell() + len(part) > max_bytes:
                    raise ImageTooLarge
                file.write(part)
            with _deidentifying:
                file.seek(0)
                data = deidentify(file.read(), self._find_pseudonym_key(), max_bytes=max_bytes)
        header = read_header(data[:PREFIX_BYTES], len(data), max_image_pixels=max_image_pixels)
        sha256 = hashlib.sha256(data).hexdigest()
        self._object_store.put(original_key(sha256), data)
        return _Original(header, sha256, len(data), self._find_patient(data[:PREFIX_BYTES]))

    def _find_patient(self, prefix: bytes) -> str:
        return patient_of(prefix, self._find_pseudonym_key)

    def _find_pseudonym_key(self) -> bytes:
        if self._pseudonym_key is None:
            with self._database.begin() as session:
                self._pseudonym_key = session.get_one(Project, self._project_id).pseudonym_key
        return self._pseudonym_key

    def _record(self, original: _Original, also: Also | None) -> Received:
        """Find or create the rows of a stored file, in one transaction."""
        with self._database.begin() as session:
            hold_object(session, self._object_store, original_key(original.sha256))
            known = self._find_job(session, original.sha256)
            if known and not share_jobs(session, [known.id], self._submission_id, self._priority, wait=True):
                raise _Overtaken
            self._restore_original(session, original.sha256)
            job = known or self._make_job(session, original)
            received = Received(
                outcome="duplicate" if known else "accepted",
                header=original.header,
                sha256=original.sha256,
                byte_count=original.byte_count,
                study_id=job.study_id,
                image_id=job.image_id,
                job_id=job.id,
            )
            state = job.state
            if also is not None:
                also(session, received)
            if self._quota is not None:
                self._quota.charge(session, original.byte_count)
        if not known:
            self._new_jobs.append(state)
        return received

    def _restore_original(self, session: Session, sha256: str) -> None:
        """Record that the original of an image is there again, if it had been deleted because of its age."""
        deleted = sa.update(Image).where(Image.project_id == self._project_id, Image.sha256 == sha256)
        deleted = deleted.where(Image.original_deleted_at.is_not(None)).values(original_deleted_at=None)
        session.execute(deleted.execution_options(synchronize_session=False))

    def _find_job(self, session: Session, sha256: str) -> Job | None:
        """Return the newest job that has the result of this file or will have it; None if there is none."""
        jobs = sa.select(Job).join(Image, Image.id == Job.image_id)
        jobs = jobs.where(Image.project_id == self._project_id, Image.sha256 == sha256)
        return session.scalar(jobs.where(*shareable(self._model_id)).order_by(Job.id.desc()).limit(1))

    def _make_job(self, session: Session, original: _Original) -> Job:
        """Create a job, and the image if it does not exist; raise `_Overtaken` if another request has just done so.

        Workers lock jobs before images, so from here on the transaction must not wait for a job.
        """
        same = sa.select(Image).where(Image.project_id == self._project_id, Image.sha256 == original.sha256)
        # The lock lets only one of several requests create the job; workers can still refer to the image.
        image = session.scalar(same.with_for_update(key_share=True))
        if image is None:
            image = self._add_image(session, original)
        elif self._find_job(session, original.sha256) is not None:
            raise _Overtaken
        return self._add_job(session, image)

    def _add_image(self, session: Session, original: _Original) -> Image:
        header = original.header
        image = Image(
            project_id=self._project_id,
            study_id=self._study_id(session, header.study_instance_uid),
            sop_instance_uid=header.sop_instance_uid,
            series_instance_uid=header.series_instance_uid,
            sop_class_uid=header.sop_class_uid,
            transfer_syntax_uid=header.transfer_syntax_uid,
            modality=header.modality,
            burned_in_annotation=header.burned_in_annotation,
            sha256=original.sha256,
            byte_count=original.byte_count,
            media_type=header.media_type,
            height_px=header.height_px,
            width_px=header.width_px,
            patient=original.patient,
        )
        session.add(image)
        session.flush()
        return image

    def _study_id(self, session: Session, study_instance_uid: str | None) -> UUID:
        """Find or create the study. Without a UID, each image is its own study."""
        study = (
            insert(Study)
            .values(project_id=self._project_id, study_instance_uid=study_instance_uid)
            .on_conflict_do_nothing(index_elements=["project_id", "study_instance_uid"])
            .returning(Study.id)
        )
        known = sa.select(Study.id).where(
            Study.project_id == self._project_id, Study.study_instance_uid == study_instance_uid
        )
        return session.scalar(study) or session.scalars(known).one()

    def _add_job(self, session: Session, image: Image) -> Job:
        job = Job(
            project_id=self._project_id,
            image_id=image.id,
            study_id=image.study_id,
            submission_id=self._submission_id,
            requested_model_id=self._model_id,
            priority=self._priority,
        )
        return add_job(session, image, job)


def add_job(session: Session, image: Image, job: Job) -> Job:
    """Add a new job of an image. If the image is prepared already, the job is ready for detection."""
    is_prepared = image.rendition_sha256 is not None and image.rendition_version == RENDITION_VERSION
    job.state = JobState.READY if is_prepared else JobState.QUEUED
    job.ready_at = sa.func.now() if is_prepared else None
    session.add(job)
    session.flush()
    return job


def in_parts(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the same bytes in parts. Each part but the last has `PART_BYTES`."""
    in_memory = _IN_MEMORY.acquire(blocking=False)
    try:
        with spooled_file(0 if in_memory else _SMALL_BYTES) as part:
            missing = PART_BYTES
            for chunk in chunks:
                left = memoryview(chunk)
                while len(left) >= missing:
                    part.write(left[:missing])
                    part.seek(0)
                    yield part.read()
                    part.seek(0)
                    part.truncate()
                    left, missing = left[missing:], PART_BYTES
                part.write(left)
                missing -= len(left)
            if missing < PART_BYTES:
                part.seek(0)
                yield part.read()
    finally:
        if in_memory:
            _IN_MEMORY.release()
