"""Deletes the rows of a study, and all other data about it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from shared.database import Database
from shared.erasure.finishing import finish
from shared.errors import NotFound
from shared.object_store import ObjectStore, original_key, rendition_key
from shared.submissions.progress import count, incoming_key
from shared.tables import (
    ApiKey,
    Detection,
    Erasure,
    IdempotencyKey,
    Image,
    Job,
    ReviewEvent,
    Study,
    Submission,
    SubmissionFile,
    TopScore,
    Webhook,
    WebhookDelivery,
)
from shared.vocabulary.states import FileState, SubmissionState

#: Attempts to delete the rows while other transactions add rows for the same images.
_TRIES = 5


@dataclass(frozen=True)
class Erased:
    """An erased study: how many images it had, and how many of its objects are not deleted yet."""

    images: int
    objects_left: int
    #: Models that were trained on datasets with these images, or from such models.
    learners: frozenset[UUID] = frozenset()


def erase_study(database: Database, store: ObjectStore, project_id: UUID, study_id: UUID) -> Erased:
    """Erase a project's study and as many of its objects as possible; raise `NotFound`.

    While objects are left, calling it again continues the deletion and returns how many are left.
    """
    for left in reversed(range(_TRIES)):
        try:
            with database.begin() as session:
                images = _erase_rows(session, project_id, study_id)
            break
        except IntegrityError:  # another transaction has added a row that refers to a deleted one
            if not left:
                raise
    with database.begin() as session:
        erasures = sa.select(Erasure.id).where(Erasure.project_id == project_id, Erasure.study_id == study_id)
        ids = session.scalars(erasures).all()
    if not ids:
        raise NotFound
    done = [finish(database.unrecorded(), store, erasure_id) for erasure_id in ids]
    return Erased(images, sum(left for left, _ in done), frozenset().union(*(learners for _, learners in done)))


def _erase_rows(session: Session, project_id: UUID, study_id: UUID) -> int:
    """Delete a study's rows and record the remaining work; return its number of images, 0 if it does not exist."""
    of_project = sa.select(Study).where(Study.id == study_id, Study.project_id == project_id)
    if session.scalar(of_project.with_for_update()) is None:
        return 0
    images = session.scalars(sa.select(Image).where(Image.study_id == study_id)).all()
    image_ids, sha256s = [image.id for image in images], sorted({image.sha256 for image in images})
    files = sa.select(SubmissionFile.submission_id, SubmissionFile.number)
    files = files.where(SubmissionFile.image_id.in_(image_ids))
    submission_ids = sorted({submission_id for submission_id, _ in session.execute(files)})
    # The order of locks is: submissions, their files, jobs.
    locked = sa.select(Submission).where(Submission.id.in_(submission_ids)).order_by(Submission.id)
    submissions = session.scalars(locked.with_for_update(key_share=True)).all()
    incoming = [incoming_key(*row) for row in session.execute(files)]
    _forget_files(session, project_id, image_ids, sha256s)
    job_ids = session.scalars(sa.select(Job.id).where(Job.image_id.in_(image_ids)).with_for_update()).all()
    renditions = set(session.scalars(sa.select(Image.rendition_sha256).where(Image.id.in_(image_ids))))
    _forget_answers(session, project_id, [study_id, *image_ids, *job_ids, *submission_ids], sha256s)
    _forget_messages(session, project_id, study_id, job_ids)
    for table, rows in (
        (ReviewEvent, ReviewEvent.job_id.in_(job_ids)),
        (Detection, Detection.job_id.in_(job_ids)),
        (TopScore, TopScore.study_id == study_id),
        (Job, Job.id.in_(job_ids)),
        (Image, Image.id.in_(image_ids)),
        (Study, Study.id == study_id),
    ):
        session.execute(sa.delete(table).where(rows).execution_options(synchronize_session=False))
    keys = [*map(original_key, sha256s), *(rendition_key(sha256) for sha256 in sorted(filter(None, renditions)))]
    session.add(Erasure(project_id=project_id, study_id=study_id, sha256s=sha256s, keys=[*keys, *incoming]))
    for submission in submissions:
        session.expire(submission)
        if SubmissionState(submission.state).is_final:
            submission.tally, submission.tallied_at = asdict(count(session, submission.id)), sa.func.now()
    return len(images)


def _forget_files(session: Session, project_id: UUID, image_ids: Sequence[UUID], sha256s: Sequence[str]) -> None:
    """Keep the rows of manifests, for their counts, but clear all data about the study."""
    nothing = dict.fromkeys(
        ("name", "sha256", "code", "reason", "source_key", "upload_id", "image_id", "job_id"), sa.null()
    )
    erased = sa.update(SubmissionFile).where(SubmissionFile.image_id.in_(image_ids))
    session.execute(erased.values(**nothing, state=FileState.ERASED).execution_options(synchronize_session=False))
    of_project = sa.select(Submission.id).where(Submission.project_id == project_id)
    same = sa.update(SubmissionFile).where(
        SubmissionFile.submission_id.in_(of_project),
        SubmissionFile.sha256.in_(sha256s),
        SubmissionFile.state.in_([state for state in FileState if state.is_final]),
    )
    session.execute(same.values(name=None, sha256=None).execution_options(synchronize_session=False))


def _forget_answers(session: Session, project_id: UUID, ids: Sequence[UUID], sha256s: Sequence[str]) -> None:
    """Delete stored answers of requests with an `Idempotency-Key` that contain one of these ids or digests."""
    of_project = sa.select(ApiKey.id).where(ApiKey.project_id == project_id)
    naming = IdempotencyKey.body.regexp_match("|".join([*map(str, ids), *sha256s]))
    kept = sa.delete(IdempotencyKey).where(IdempotencyKey.api_key_id.in_(of_project), naming)
    session.execute(kept.execution_options(synchronize_session=False))


def _forget_messages(session: Session, project_id: UUID, study_id: UUID, job_ids: Sequence[UUID]) -> None:
    of_project = sa.select(Webhook.id).where(Webhook.project_id == project_id)
    about = sa.or_(
        WebhookDelivery.payload["study_id"].astext == str(study_id),
        WebhookDelivery.payload["job_id"].astext.in_([str(job_id) for job_id in job_ids]),
    )
    messages = sa.delete(WebhookDelivery).where(WebhookDelivery.webhook_id.in_(of_project), about)
    session.execute(messages.execution_options(synchronize_session=False))
