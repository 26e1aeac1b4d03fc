"""Deletes data of a project whose retention time has passed: some rows in each call, in one transaction."""

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared.erasure.reconciliation import Reconciliation
from shared.object_store import digest_in, original_key, rendition_key
from shared.settings import Settings
from shared.tables import (
    AuditEvent,
    Detection,
    Erasure,
    Image,
    Job,
    ReviewEvent,
    Submission,
    SubmissionFile,
    TopScore,
    Webhook,
    WebhookDelivery,
)
from shared.vocabulary.retention import Retained
from shared.vocabulary.states import DeliveryState, FileState, JobState, SubmissionState

#: The most rows that a call deletes.
AT_A_TIME = 500
_NO_SYNC = {"synchronize_session": False}
_OF_FILE = ("name", "sha256", "code", "reason", "source_key", "upload_id", "image_id", "job_id")
_OPEN_JOB = sa.exists().where(Job.image_id == Image.id, Job.state.in_(JobState.open()))


class Retention:
    """Deletes old data. The objects are deleted by `finish_all`, unless another row refers to them."""

    def __init__(self, reconciliation: Reconciliation) -> None:
        self._reconciliation = reconciliation
        self._steps: dict[Retained, Callable[[Session, UUID, timedelta], int]] = {
            Retained.ORIGINALS: _delete_originals,
            Retained.RENDITIONS: self._delete_renditions,
            Retained.RESULTS: _delete_results,
            Retained.SUBMISSIONS: _delete_submissions,
            Retained.DELIVERIES: _delete_deliveries,
            Retained.AUDIT: _delete_audit,
        }

    def delete_some(self, session: Session, project_id: UUID, kind: Retained, age: timedelta) -> int:
        """Delete some old data of a kind; return how many rows. Less than `AT_A_TIME` means that no more is old."""
        return self._steps[kind](session, project_id, age)

    def _delete_renditions(self, session: Session, project_id: UUID, age: timedelta) -> int:
        """Delete renditions, except those that datasets contain."""
        needed = [digest_in(key) for key in self._reconciliation.renditions_of_datasets()]
        images = _old_images(project_id, age).where(
            Image.rendition_sha256.is_not(None),
            Image.rendition_sha256 != sa.all_(sa.literal(needed, sa.ARRAY(sa.Text()))),
        )
        found = session.execute(images.with_only_columns(Image.id, Image.rendition_sha256)).all()
        columns = ("sha256", "version", "height_px", "width_px", "byte_count")
        _change_images(session, [row.id for row in found], **{f"rendition_{column}": None for column in columns})
        _erase(session, project_id, [rendition_key(row.rendition_sha256 or "") for row in found])
        return len(found)


def days_kept(kind: Retained, own: Mapping[str, int], settings: Settings) -> int:
    """Return the days for which a project keeps a kind of data: its `own` number, else that of the settings."""
    return own.get(kind, getattr(settings, f"{kind}_days"))


def is_older(column: Any, age: timedelta) -> sa.ColumnElement[bool]:
    """Return the condition that a time is further back than `age`."""
    return column < sa.func.now() - age  # type: ignore[no-any-return]


def delete_some(session: Session, key: Any, which: sa.ColumnElement[bool]) -> int:
    """Delete some rows of the table of a key column; return how many. Less than `AT_A_TIME` means that none is left."""
    some = sa.select(key).where(which).limit(AT_A_TIME)
    gone = sa.delete(key.class_).where(key.in_(some)).returning(key)
    return len(session.scalars(gone.execution_options(**_NO_SYNC)).all())


def _old_images(project_id: UUID, age: timedelta) -> sa.Select[Any]:
    """Select images that arrived before this age and that no job needs."""
    old = sa.select(Image).where(Image.project_id == project_id, is_older(Image.created_at, age), ~_OPEN_JOB)
    return old.order_by(Image.id).limit(AT_A_TIME).with_for_update(skip_locked=True)


def _change_images(session: Session, image_ids: list[UUID], **values: Any) -> None:
    session.execute(sa.update(Image).where(Image.id.in_(image_ids)).values(**values).execution_options(**_NO_SYNC))


def _erase(session: Session, project_id: UUID, keys: list[str]) -> None:
    if keys:
        session.add(Erasure(project_id=project_id, study_id=None, sha256s=[], keys=sorted(set(keys))))


def _delete_originals(session: Session, project_id: UUID, age: timedelta) -> int:
    images = _old_images(project_id, age).where(Image.original_deleted_at.is_(None))
    found = session.execute(images.with_only_columns(Image.id, Image.sha256)).all()
    _change_images(session, [row.id for row in found], original_deleted_at=sa.func.now())
    _erase(session, project_id, [original_key(row.sha256) for row in found])
    return len(found)


def _delete_results(session: Session, project_id: UUID, age: timedelta) -> int:
    """Delete final jobs with their detections and reviews. Their files show as erased in the manifests."""
    old = sa.select(Job.id).where(Job.project_id == project_id, is_older(Job.finished_at, age))
    job_ids = session.scalars(old.order_by(Job.finished_at).limit(AT_A_TIME).with_for_update(skip_locked=True)).all()
    nothing: dict[str, Any] = dict.fromkeys(_OF_FILE, sa.null())
    files = sa.update(SubmissionFile).where(SubmissionFile.job_id.in_(job_ids))
    session.execute(files.values(**nothing, state=FileState.ERASED).execution_options(**_NO_SYNC))
    for table, column in (
        (ReviewEvent, ReviewEvent.job_id),
        (Detection, Detection.job_id),
        (TopScore, TopScore.job_id),
        (Job, Job.id),
    ):
        session.execute(sa.delete(table).where(column.in_(job_ids)).execution_options(**_NO_SYNC))
    return len(job_ids)


def _delete_submissions(session: Session, project_id: UUID, age: timedelta) -> int:
    """Delete final submissions: first their files, then the references of jobs, then the submission itself."""
    final = [state for state in SubmissionState if state.is_final]
    old = sa.select(Submission.id).where(Submission.project_id == project_id, Submission.state.in_(final))
    old = old.where(is_older(Submission.finished_at, age)).order_by(Submission.id).limit(1)
    submission_id = session.scalar(old.with_for_update(skip_locked=True))
    if submission_id is None:
        return 0
    some = sa.select(SubmissionFile.number).where(SubmissionFile.submission_id == submission_id).limit(AT_A_TIME)
    files = sa.delete(SubmissionFile).where(SubmissionFile.submission_id == submission_id)
    files = files.where(SubmissionFile.number.in_(some))
    if not session.scalars(files.returning(SubmissionFile.number).execution_options(**_NO_SYNC)).all():
        some_jobs = sa.select(Job.id).where(Job.submission_id == submission_id).limit(AT_A_TIME)
        jobs = sa.update(Job).where(Job.id.in_(some_jobs)).values(submission_id=None).returning(Job.id)
        if not session.scalars(jobs.execution_options(**_NO_SYNC)).all():
            session.execute(sa.delete(Submission).where(Submission.id == submission_id))
    return AT_A_TIME  # there may be more


def _delete_deliveries(session: Session, project_id: UUID, age: timedelta) -> int:
    own = sa.select(Webhook.id).where(Webhook.project_id == project_id)
    old = sa.and_(
        WebhookDelivery.webhook_id.in_(own),
        WebhookDelivery.state.in_([DeliveryState.DELIVERED, DeliveryState.DEAD]),
        is_older(sa.func.coalesce(WebhookDelivery.finished_at, WebhookDelivery.created_at), age),
    )
    return delete_some(session, WebhookDelivery.id, old)


def _delete_audit(session: Session, project_id: UUID, age: timedelta) -> int:
    old = sa.and_(AuditEvent.project_id == project_id, is_older(AuditEvent.created_at, age))
    return delete_some(session, AuditEvent.id, old)
