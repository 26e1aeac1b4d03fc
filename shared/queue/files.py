"""Taking the files of submissions, keeping them, and bringing them to their end: the lease of the intake workers.

As with jobs (see `claim`), every change is one UPDATE under the fence `(lease_owner, attempt)` with a lease that has
not run out: zero rows mean that the file is somebody else's by now, or was cancelled.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Session

from shared.database import is_any
from shared.errors import CarinaError, NotUploaded, PermanentError, TransientError, UploadError
from shared.queue.claim import LOST_WORKER, in_seconds
from shared.queue.outcome import LONGEST_BACKOFF_S
from shared.tables import Submission, SubmissionFile
from shared.vocabulary.states import FileState, SubmissionState

#: What a file may come out of intake as.
_ENDS = (FileState.ACCEPTED, FileState.DUPLICATE, FileState.UNPACKED, FileState.REJECTED, FileState.FAILED)


@dataclass(frozen=True)
class FileClaim:
    """A file of a submission that this process holds under a lease."""

    submission_id: UUID
    number: int
    owner: str
    attempt: int
    #: Of the submission: whose it is, how urgent, under which model.
    project_id: UUID
    priority: int
    model_id: UUID | None
    #: Whose quota it counts against.
    key_id: UUID | None
    #: As announced; None where nobody announced it.
    byte_count: int | None
    sha256: str | None
    #: Of a large upload: the object store's name for it.
    upload_id: str | None
    #: Where a file from a bucket lies; None for an upload.
    source_bucket: str | None
    source_key: str | None


def claim_files(session: Session, owner: str, *, limit: int, lease_s: float) -> list[FileClaim]:
    """Lease up to `limit` files that have arrived, highest priority first, then oldest; never waits."""
    waiting = (
        sa.select(SubmissionFile.submission_id, SubmissionFile.number)
        .where(SubmissionFile.state == FileState.ARRIVED, SubmissionFile.available_at <= sa.func.now())
        .order_by(SubmissionFile.priority.desc(), SubmissionFile.submission_id, SubmissionFile.number)
        .limit(limit)
        .with_for_update(skip_locked=True)
    ).cte("waiting", nesting=False)
    taken = (
        sa.update(SubmissionFile)
        .where(
            SubmissionFile.submission_id == waiting.c.submission_id,
            SubmissionFile.number == waiting.c.number,
            Submission.id == SubmissionFile.submission_id,
        )
        .values(
            state=FileState.CHECKING,
            lease_owner=owner,
            lease_expires_at=in_seconds(lease_s),
            attempt=SubmissionFile.attempt + 1,
        )
        .returning(
            SubmissionFile.submission_id,
            SubmissionFile.number,
            SubmissionFile.lease_owner.label("owner"),
            SubmissionFile.attempt,
            Submission.project_id,
            SubmissionFile.priority,
            Submission.requested_model_id.label("model_id"),
            Submission.api_key_id.label("key_id"),
            SubmissionFile.byte_count,
            SubmissionFile.sha256,
            SubmissionFile.upload_id,
            Submission.source_bucket,
            SubmissionFile.source_key,
        )
        .execution_options(synchronize_session=False)
    )
    claims = [FileClaim(**row) for row in session.execute(taken).mappings()]
    return sorted(claims, key=lambda claim: (-claim.priority, claim.submission_id, claim.number))


def renew_files(session: Session, claims: Collection[FileClaim], *, lease_s: float) -> int:
    """Move the end of these leases to `lease_s` from now; return how many are still ours."""
    return _update(session, claims, lease_expires_at=in_seconds(lease_s))


def release_file(session: Session, claim: FileClaim, *, pause_s: float = 0, **why: str) -> bool:
    """Hand a file back as if it had not been claimed: this worker stops, or it has to wait; `why` is shown then."""
    return _update(session, [claim], **_waiting(pause_s), **why, attempt=SubmissionFile.attempt - 1) > 0


def holds_file(session: Session, claim: FileClaim) -> bool:
    """Return whether the file is still ours, and keep it so until the transaction's end."""
    ours = sa.select(SubmissionFile.number).where(_fenced([claim])).with_for_update(read=True)
    return session.scalar(ours) is not None


def finish_file(session: Session, claim: FileClaim, state: FileState, **values: Any) -> bool:
    """Bring a file that is still ours to its end; return whether it was.

    Its key in a bucket, which may hold a name, is forgotten, but for a file that may be tried again from there.
    """
    assert state in _ENDS
    values = {"code": None, "reason": None, **values}
    if state is not FileState.FAILED:
        values["source_key"] = None
    return _update(session, [claim], **_final(state), **values) > 0


def give_up_or_retry_file(
    session: Session, claim: FileClaim, error: CarinaError, *, max_attempts: int, backoff_s: float
) -> FileState | None:
    """End or repeat a file after an error; return its new state, or None when it was no longer ours.

    A permanent error rejects it, a bad upload fails it. A transient error sends it back with a backoff that doubles,
    until its attempts are used up and it has failed; an outage of a server costs none.
    """
    why: dict[str, Any] = {"code": error.code, "reason": error.public_detail}
    if isinstance(error, PermanentError):
        return FileState.REJECTED if finish_file(session, claim, FileState.REJECTED, **why) else None
    outage = isinstance(error, TransientError) and not error.counts
    if isinstance(error, UploadError) and not isinstance(error, NotUploaded):
        why["upload_id"] = None  # What is sent again is another upload.
    if isinstance(error, UploadError) or (claim.attempt >= max_attempts and not outage):
        return FileState.FAILED if finish_file(session, claim, FileState.FAILED, **why) else None
    pause_s = min(backoff_s * 2 ** (claim.attempt - 1), LONGEST_BACKOFF_S)
    attempt = SubmissionFile.attempt - 1 if outage else SubmissionFile.attempt
    return FileState.ARRIVED if _update(session, [claim], **_waiting(pause_s), **why, attempt=attempt) else None


def expire_file_leases(session: Session, *, max_attempts: int) -> dict[FileState, int]:
    """Return the files of silent workers to those that have arrived; fail those with no attempts left."""
    expired = (SubmissionFile.state == FileState.CHECKING, SubmissionFile.lease_expires_at <= sa.func.now())
    used_up = SubmissionFile.attempt >= max_attempts
    lost = {"code": LOST_WORKER, "reason": "The worker that had the file fell silent."}
    outcome: dict[FileState, int] = {}
    for state, which, values in (
        (FileState.FAILED, used_up, _final(FileState.FAILED)),
        (FileState.ARRIVED, ~used_up, _waiting(0)),
    ):
        key = sa.tuple_(SubmissionFile.submission_id, SubmissionFile.number)
        skipping = sa.select(SubmissionFile.submission_id, SubmissionFile.number).where(*expired, which)
        change = sa.update(SubmissionFile).where(key.in_(skipping.with_for_update(skip_locked=True)))
        outcome[state] = _count(session, change.values(**values, **lost))
    return outcome


def count_arrived(session: Session, *, at_most: int) -> int:
    """How many files wait for an intake worker."""
    due = sa.select(SubmissionFile.number).where(
        SubmissionFile.state == FileState.ARRIVED, SubmissionFile.available_at <= sa.func.now()
    )
    return session.scalar(sa.select(sa.func.count()).select_from(due.limit(at_most).subquery())) or 0


def is_listing() -> sa.ColumnElement[bool]:
    """The condition under which the files of a submission from a bucket have not all been listed.

    The end of the listing closes the submission, as `complete` does for uploads.
    """
    return sa.and_(Submission.state == SubmissionState.OPEN, Submission.source_bucket.is_not(None))


def _fenced(claims: Collection[FileClaim]) -> sa.ColumnElement[bool]:
    # Arrays, because a list of parameters makes another statement for each length, to be parsed and planned again.
    held = sa.select(
        sa.func.unnest(sa.literal([claim.submission_id for claim in claims], ARRAY(sa.Uuid()))),
        sa.func.unnest(sa.literal([claim.number for claim in claims], ARRAY(sa.BigInteger()))),
        sa.func.unnest(sa.literal([claim.attempt for claim in claims], ARRAY(sa.Integer()))),
    )
    return sa.and_(
        sa.tuple_(SubmissionFile.submission_id, SubmissionFile.number, SubmissionFile.attempt).in_(held),
        is_any(SubmissionFile.lease_owner, sorted({claim.owner for claim in claims})),
        SubmissionFile.lease_expires_at > sa.func.now(),
    )


def _final(state: FileState) -> dict[str, Any]:
    return {"state": state, "lease_owner": None, "lease_expires_at": None, "finished_at": sa.func.now()}


def _waiting(pause_s: float) -> dict[str, Any]:
    return {
        "state": FileState.ARRIVED,
        "lease_owner": None,
        "lease_expires_at": None,
        "available_at": in_seconds(pause_s),
    }


def _update(session: Session, claims: Collection[FileClaim], **values: Any) -> int:
    if not claims:
        return 0
    return _count(session, sa.update(SubmissionFile).where(_fenced(claims)).values(**values))


def _count(session: Session, change: sa.Update) -> int:
    rows = session.execute(change.returning(SubmissionFile.number).execution_options(synchronize_session=False))
    return len(rows.all())
