"""Announced files of a submission: their rows and their upload URLs."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Session

from api.contract.submissions import AnnouncedFile, Part, Upload
from api.http.address import absolute
from api.http.auth import identity
from api.http.services import services
from shared.access.quotas import find_quota
from shared.errors import FileTooLarge, ObjectMissing
from shared.queue.shared_jobs import share_jobs, shareable
from shared.submissions.progress import allocate, incoming_key
from shared.tables import Image, Job, Submission, SubmissionFile
from shared.vocabulary.states import FileState

#: Larger files are uploaded in parts.
WHOLE_BYTES = 64 * 1024**2
#: The size of a part, and the maximum number of parts, for which larger files get larger parts.
_PART_BYTES, _MAX_PARTS = 64 * 1024**2, 1000
#: Limit of the URLs in an answer; each takes about 600 bytes and 0.5 ms.
_MAX_URLS = 10_000


def announce(session: Session, submission: Submission, files: Sequence[AnnouncedFile]) -> list[SubmissionFile]:
    """Add files to a locked submission. Files whose image has a result or an open job are duplicates.

    Raises `QuotaExceeded`.
    """
    settings = services().settings
    identifiable = settings.deidentify == "off"
    # De-identified originals have other digests than the files that are sent.
    known = _known(session, submission, {file.sha256 for file in files}) if identifiable else {}
    max_bytes = settings.max_upload_bytes
    if not through_api():
        max_bytes = max(max_bytes, settings.max_archive_bytes)
    to_send = [file for file in files if file.sha256 not in known and file.byte_count <= max_bytes]
    # They count against the quota when they are processed; this check refuses hopeless requests early.
    if (quota := find_quota(session, identity().key_id)) is not None:
        quota.check(session, len(to_send), sum(file.byte_count for file in to_send))
    first = allocate(session, submission.id, len(files))
    rows = []
    for number, file in enumerate(files, start=first):
        row = SubmissionFile(
            submission_id=submission.id,
            number=number,
            name=file.name if identifiable else None,
            byte_count=file.byte_count,
            sha256=file.sha256,
            priority=submission.priority,
            state=FileState.EXPECTED,
        )
        if file.sha256 in known:
            row.state, row.finished_at = FileState.DUPLICATE, sa.func.now()
            row.image_id, row.job_id = known[file.sha256]
        elif file.byte_count > max_bytes:
            row.state, row.finished_at = FileState.REJECTED, sa.func.now()
            row.code, row.reason = FileTooLarge.code, FileTooLarge().detail
        rows.append(row)
    session.add_all(rows)
    session.flush()
    return rows


def through_api() -> bool:
    """Whether uploads go through this API: identifiable files must never be stored."""
    settings = services().settings
    return not settings.direct_uploads or settings.deidentify != "off"


def describe_uploads(rows: Sequence[SubmissionFile]) -> list[Upload]:
    """Return the upload URLs of expected files. Large files need the object store, so call it outside a transaction."""
    uploads, urls = [], 0
    for row in rows:
        upload = Upload(number=row.number, state=row.state)
        if row.state == FileState.EXPECTED and urls < _MAX_URLS:
            _set_urls(upload, row)
            urls += len(upload.parts or (1,))
        uploads.append(upload)
    return uploads


def _set_urls(upload: Upload, row: SubmissionFile) -> None:
    store = services().store
    assert row.byte_count is not None
    if through_api():
        upload.url = absolute(f"/v1/submissions/{row.submission_id}/files/{row.number}/content")
        upload.through_api = True
        return
    expires_s = store.url_lifetime_s(services().settings.upload_url_s)
    upload.expires_at = datetime.now(UTC) + timedelta(seconds=expires_s)
    key = incoming_key(row.submission_id, row.number)
    if row.byte_count <= WHOLE_BYTES:
        upload.url = store.presign_put(key, row.byte_count, expires_s=expires_s)
        return
    upload_id, arrived = _upload_in_parts(row, key)
    upload.parts = [
        Part(
            part_number=number,
            offset=offset,
            byte_count=size,
            url=store.presign_part(key, upload_id, number, size, expires_s=expires_s),
            done=arrived.get(number) == size,
        )
        for number, offset, size in _cut(row.byte_count)
    ]


def _cut(byte_count: int) -> list[tuple[int, int, int]]:
    """Divide a file into parts; return their numbers, offsets and sizes."""
    part_bytes = max(_PART_BYTES, -(-byte_count // _MAX_PARTS))
    return [
        (number, offset, min(part_bytes, byte_count - offset))
        for number, offset in enumerate(range(0, byte_count, part_bytes), start=1)
    ]


def _upload_in_parts(row: SubmissionFile, key: str) -> tuple[str, dict[int, int]]:
    """Return the id of a file's multipart upload, which is created if it is missing, and the uploaded parts."""
    store = services().store
    known = row.upload_id
    while True:
        if known is not None:
            try:
                return known, store.uploaded_parts(key, known)
            except ObjectMissing:
                pass  # removed because it was abandoned
        begun = store.create_upload(key)
        now = _keep_upload_id(row, known, begun)
        if now == begun:
            return begun, {}
        # Another request was quicker.
        store.abort_upload(key, begun)
        known = now


def _keep_upload_id(row: SubmissionFile, known: str | None, begun: str) -> str | None:
    """Store the id of an upload in place of the known one; return the id that is stored."""
    mine = sa.and_(SubmissionFile.submission_id == row.submission_id, SubmissionFile.number == row.number)
    change = sa.update(SubmissionFile).where(mine, SubmissionFile.upload_id.is_not_distinct_from(known))
    with services().database.unrecorded().begin() as session:
        session.execute(change.values(upload_id=begun).execution_options(synchronize_session=False))
        return session.scalar(sa.select(SubmissionFile.upload_id).where(mine))


def _known(session: Session, submission: Submission, digests: set[str]) -> dict[str, tuple[UUID, UUID]]:
    """Return, by digest, the project's images with a shareable job, and that job."""
    job = sa.select(Job.id).where(Job.image_id == Image.id, *shareable(submission.requested_model_id))
    job = job.order_by(Job.id.desc()).limit(1)
    latest = job.correlate(Image).lateral("latest")
    rows = sa.select(Image.sha256, Image.id, latest.c.id).join(latest, sa.true())
    rows = rows.where(Image.project_id == submission.project_id, Image.sha256.in_(digests))
    known = session.execute(rows).all()
    # Do not wait for rows that a worker has locked, to avoid deadlocks; such a file is uploaded again.
    safe = share_jobs(session, [job_id for *_, job_id in known], submission.id, submission.priority, wait=False)
    return {sha256: (image_id, job_id) for sha256, image_id, job_id in known if job_id in safe}
