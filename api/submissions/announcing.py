"""Files of a submission that are told of before they come: their rows, and where to put their bytes."""

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

#: A larger file is uploaded in parts.
WHOLE_BYTES = 64 * 1024**2
#: Of a part, unless there would be too many.
_PART_BYTES, _MOST_PARTS = 64 * 1024**2, 1000
#: A bound on an answer's size; each takes some 600 bytes and half a millisecond.
_MOST_URLS = 10_000


def announce(session: Session, submission: Submission, files: Sequence[AnnouncedFile]) -> list[SubmissionFile]:
    """Add files to a locked submission. What the project has a result of already, or will have, is a duplicate.

    Raises `QuotaExceeded`.
    """
    settings = services().settings
    identifiable = settings.deidentify == "off"
    # Where originals are replaced, none has the digest of what is sent.
    known = _known(session, submission, {file.sha256 for file in files}) if identifiable else {}
    most_bytes = settings.max_upload_bytes
    if not through_api():
        most_bytes = max(most_bytes, settings.max_archive_bytes)
    to_send = [file for file in files if file.sha256 not in known and file.byte_count <= most_bytes]
    # They count once they are taken in, as far as there is room for them then.
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
        elif file.byte_count > most_bytes:
            row.state, row.finished_at = FileState.REJECTED, sa.func.now()
            row.code, row.reason = FileTooLarge.code, FileTooLarge().detail
        rows.append(row)
    session.add_all(rows)
    session.flush()
    return rows


def through_api() -> bool:
    """Whether uploads go through this API: identifiable bytes must never lie in the store."""
    settings = services().settings
    return not settings.direct_uploads or settings.deidentify != "off"


def describe_uploads(rows: Sequence[SubmissionFile]) -> list[Upload]:
    """Say where to put each file that is expected; needs the object store for large ones. Call it without a session."""
    uploads, urls = [], 0
    for row in rows:
        upload = Upload(number=row.number, state=row.state)
        if row.state == FileState.EXPECTED and urls < _MOST_URLS:
            _say_where(upload, row)
            urls += len(upload.parts or (1,))
        uploads.append(upload)
    return uploads


def _say_where(upload: Upload, row: SubmissionFile) -> None:
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
    """Cut a file into parts; return their numbers, offsets and sizes."""
    part_bytes = max(_PART_BYTES, -(-byte_count // _MOST_PARTS))
    return [
        (number, offset, min(part_bytes, byte_count - offset))
        for number, offset in enumerate(range(0, byte_count, part_bytes), start=1)
    ]


def _upload_in_parts(row: SubmissionFile, key: str) -> tuple[str, dict[int, int]]:
    """Return the name of a file's upload, begun now if it is not yet or no more, and the parts that have arrived."""
    store = services().store
    known = row.upload_id
    while True:
        if known is not None:
            try:
                return known, store.uploaded_parts(key, known)
            except ObjectMissing:
                pass  # removed, because nobody went on with it for too long
        begun = store.create_upload(key)
        now = _keep_upload_id(row, known, begun)
        if now == begun:
            return begun, {}
        # Another request was quicker.
        store.abort_upload(key, begun)
        known = now


def _keep_upload_id(row: SubmissionFile, known: str | None, begun: str) -> str | None:
    """Note an upload's name in place of the one that was known; return the name that is noted then."""
    mine = sa.and_(SubmissionFile.submission_id == row.submission_id, SubmissionFile.number == row.number)
    change = sa.update(SubmissionFile).where(mine, SubmissionFile.upload_id.is_not_distinct_from(known))
    with services().database.unrecorded().begin() as session:
        session.execute(change.values(upload_id=begun).execution_options(synchronize_session=False))
        return session.scalar(sa.select(SubmissionFile.upload_id).where(mine))


def _known(session: Session, submission: Submission, digests: set[str]) -> dict[str, tuple[UUID, UUID]]:
    """Return the images of the project with these digests and a job to count on, and that job, by digest."""
    job = sa.select(Job.id).where(Job.image_id == Image.id, *shareable(submission.requested_model_id))
    job = job.order_by(Job.id.desc()).limit(1)
    latest = job.correlate(Image).lateral("latest")
    rows = sa.select(Image.sha256, Image.id, latest.c.id).join(latest, sa.true())
    rows = rows.where(Image.project_id == submission.project_id, Image.sha256.in_(digests))
    known = session.execute(rows).all()
    # What a worker is just changing is not waited for: it locks many jobs at once, as we do. Such a file is sent.
    safe = share_jobs(session, [job_id for *_, job_id in known], submission.id, submission.priority, wait=False)
    return {sha256: (image_id, job_id) for sha256, image_id, job_id in known if job_id in safe}
