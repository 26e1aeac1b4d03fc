"""Claiming the files of submissions, and bringing them to their end: the leases of the intake workers."""

from dataclasses import dataclass
from typing import Any, ClassVar
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared.database.notices import notify
from shared.errors import CarinaError, NotUploaded, UploadError
from shared.leases import (
    Lease,
    change,
    change_held,
    ends_as,
    expired,
    final_values,
    held,
    is_due,
    leased_values,
    lost,
    reason_of,
    try_again,
    waiting_values,
)
from shared.tables import Submission, SubmissionFile
from shared.vocabulary.states import FileState, SubmissionState


@dataclass(frozen=True, kw_only=True)
class FileClaim(Lease):
    """A file of a submission that this process holds under a lease."""

    table: ClassVar = SubmissionFile
    waiting_state: ClassVar = FileState.ARRIVED

    submission_id: UUID
    number: int
    #: Of the submission: its project, its priority, and the model that it asks for.
    project_id: UUID
    priority: int
    model_id: UUID | None
    #: The key whose quota it counts against.
    key_id: UUID | None
    #: As announced; None where they were not.
    byte_count: int | None
    sha256: str | None
    #: Of a large upload: the object store's name for it.
    upload_id: str | None
    #: The place of a file from a bucket; None for an upload.
    source_bucket: str | None
    source_key: str | None

    @property
    def key(self) -> tuple[UUID, int]:
        """The submission's id and the file's number."""
        return self.submission_id, self.number


def claim_files(session: Session, owner: str, *, limit: int, lease_s: float) -> list[FileClaim]:
    """Lease up to `limit` files that have arrived, highest priority first, then oldest; never waits."""
    waiting = (
        sa.select(SubmissionFile.submission_id, SubmissionFile.number)
        .where(is_due(SubmissionFile, FileState.ARRIVED))
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
        .values(**leased_values(SubmissionFile, FileState.CHECKING, owner, lease_s))
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


def holds_file(session: Session, claim: FileClaim) -> bool:
    """Return whether the file is still ours, and keep it so until the transaction's end."""
    ours = sa.select(SubmissionFile.number).where(held([claim])).with_for_update(read=True)
    return session.scalar(ours) is not None


def finish_file(session: Session, claim: FileClaim, state: FileState, **values: Any) -> bool:
    """Bring a file that is still ours to its end; return whether it was.

    Its key in a bucket, which may hold a name, is deleted, except of a file that may be tried again from there.
    """
    values = {"code": None, "reason": None, **values}
    if state is not FileState.FAILED:
        values["source_key"] = None
    notify(session, [claim.submission_id])
    return change_held(session, [claim], **final_values(state), **values) > 0


def give_up_or_retry_file(
    session: Session, claim: FileClaim, error: CarinaError, *, max_attempts: int, backoff_s: float
) -> FileState | None:
    """End a file after an error, or have it tried again; return its new state, or None if it was no longer ours.

    `shared.leases.ends_as` decides.
    """
    final = ends_as(error, claim.attempt, max_attempts=max_attempts)
    values: dict[str, Any] = {}
    if isinstance(error, UploadError) and not isinstance(error, NotUploaded):
        values["upload_id"] = None  # The client sends the file again as another upload.
    if final is None:
        return FileState.ARRIVED if try_again(session, claim, error, backoff_s=backoff_s) else None
    state = FileState(final)
    return state if finish_file(session, claim, state, **values, **reason_of(error)) else None


def expire_file_leases(session: Session, *, max_attempts: int) -> dict[FileState, int]:
    """Return the files of silent workers to those that have arrived; fail those with no attempts left."""
    used_up = SubmissionFile.attempt >= max_attempts
    counts = {}
    for which, values in ((used_up, final_values(FileState.FAILED)), (~used_up, waiting_values(FileState.ARRIVED))):
        silent = expired(SubmissionFile, FileState.CHECKING, which)
        counts[values["state"]] = len(change(session, SubmissionFile, silent, **values, **lost("file")))
    return counts


def is_listing() -> sa.ColumnElement[bool]:
    """The condition that the files of a submission from a bucket have not all been listed.

    The end of the listing closes the submission, as `complete` does for uploads.
    """
    return sa.and_(Submission.state == SubmissionState.OPEN, Submission.source_bucket.is_not(None))
