"""Erasing a study: its rows at once, then its objects, and marks on the datasets that were made from it.

What is left to do is a row (`tables.Erasure`) that is written in the transaction which removes the study. Whoever
erases goes on with it at once; the sweep does the rest, as where the object store is down or the process was killed.

Bytes of one digest are one object, whoever sent them. An object goes only if no image refers to it, which is looked
up under a lock of its key; whoever refers to an object takes the same lock (`hold_object`). A file may be stored
before an object is erased and get its row after: `tables.ErasedObject` says for an hour that this has to be looked at.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa
import structlog
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from shared.database import Database
from shared.errors import (
    CarinaError,
    DatabaseUnavailable,
    NotFound,
    ObjectMissing,
    ObjectStoreUnavailable,
    Place,
    RequestError,
    TransientError,
)
from shared.object_store import ObjectStore, dataset_key, original_key, rendition_key, result_key
from shared.submissions.progress import count, incoming_key
from shared.tables import (
    ApiKey,
    Dataset,
    Detection,
    ErasedObject,
    Erasure,
    Evaluation,
    IdempotencyKey,
    Image,
    Job,
    Rendition,
    ReviewEvent,
    Study,
    Submission,
    SubmissionFile,
    TopScore,
    TrainingRun,
    Webhook,
    WebhookDelivery,
)
from shared.vocabulary.states import FileState, SubmissionState, TaskState

log = structlog.get_logger()

#: How long it is remembered that an object was erased: far longer than from storing a file to writing its row.
REMEMBERED = timedelta(hours=1)
#: While others take in or end jobs of the same images.
_TRIES = 5
_OPEN_TASKS = [state for state in TaskState if not state.is_final]


class ErasedMeanwhile(TransientError):
    """The same image was erased while the file was processed. Send it again."""

    code = "erased_meanwhile"


class DatasetErased(RequestError):
    """Images of the dataset have been erased. Create the dataset again."""

    code = "dataset_has_erased_images"
    places = Place.REQUEST | Place.TASK
    status = 409


@dataclass(frozen=True)
class Erased:
    """A study that is gone: how many images it had, and how many objects of it are still to be removed."""

    images: int
    objects_left: int


def require_whole(dataset: Dataset) -> None:
    """Raise `DatasetErased` for a dataset that has lost images."""
    if dataset.erased_count:
        raise DatasetErased(
            f"{dataset.erased_count} images of the dataset {dataset.id} were erased since it was made; "
            "make the dataset anew."
        )


# --- what refers to objects ------------------------------------------------------------------------------------------


def hold_object(session: Session, store: ObjectStore, key: str) -> None:
    """Keep an object from being erased until the transaction ends, which refers to it.

    Raise `ErasedMeanwhile` where it was erased since it was stored.
    """
    session.execute(sa.select(sa.func.pg_advisory_xact_lock_shared(_lock_of(key))))
    was_erased = session.scalar(sa.select(sa.exists().where(ErasedObject.key_sha256 == _digest_of(key))))
    if was_erased and not store.has(key):
        raise ErasedMeanwhile


def discard(session: Session, key: str) -> None:
    """Have an object removed that was stored for an image which is gone."""
    session.execute(sa.insert(Erasure).values(study_id=None, sha256s=[], keys=[key], dataset_ids=[]))


# --- the rows --------------------------------------------------------------------------------------------------------


def erase_study(database: Database, store: ObjectStore, project_id: UUID, study_id: UUID) -> Erased:
    """Erase a project's study, and what can be removed of its objects at once; raise `NotFound`.

    While objects are left, calling it again says how many.
    """
    for left in reversed(range(_TRIES)):
        try:
            with database.begin() as session:
                images = _erase_rows(session, project_id, study_id)
            break
        except IntegrityError:  # a row was added that refers to one that was about to go
            if not left:
                raise
    with database.begin() as session:
        erasures = sa.select(Erasure.id).where(Erasure.project_id == project_id, Erasure.study_id == study_id)
        ids = session.scalars(erasures).all()
    if not ids:
        raise NotFound
    objects_left = sum(go_on(database.unrecorded(), store, erasure_id) for erasure_id in ids)
    return Erased(images, objects_left)


def _erase_rows(session: Session, project_id: UUID, study_id: UUID) -> int:
    """Remove a study's rows and note what is left to do; return how many images it had, 0 where there is no study."""
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
    """Leave the rows of a manifest that count, without anything that tells of the study."""
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
    """Remove kept answers that name any of these."""
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


# --- the rest --------------------------------------------------------------------------------------------------------


def go_on_with_all(database: Database, store: ObjectStore) -> None:
    """Go on with everything that is left to be erased, and forget what was erased long ago.

    Where the object store or the database is down, the rest waits for the next time.
    """
    with database.begin() as session:
        ids = session.scalars(sa.select(Erasure.id).order_by(Erasure.id)).all()
        session.execute(sa.delete(ErasedObject).where(ErasedObject.erased_at < sa.func.now() - REMEMBERED))
    for erasure_id in ids:
        try:
            _do_rest(database, store, erasure_id)
        except (ObjectStoreUnavailable, DatabaseUnavailable) as error:
            log.warning("erasures_wait", code=error.code)
            return
        except CarinaError as error:
            _warn(erasure_id, error)


def go_on(database: Database, store: ObjectStore, erasure_id: UUID) -> int:
    """Do what can be done of an erasure now; return how many objects are left. Two at once do no harm."""
    try:
        return _do_rest(database, store, erasure_id)
    except CarinaError as error:
        _warn(erasure_id, error)
        return _finish(database, erasure_id)


def _do_rest(database: Database, store: ObjectStore, erasure_id: UUID) -> int:
    _mark_datasets(database, store, erasure_id)
    with database.begin() as session:
        erasure = session.get(Erasure, erasure_id)
        keys = list(erasure.keys) if erasure else []
    for key in keys:
        _erase_object(database, store, erasure_id, key)
    return _finish(database, erasure_id)


def _warn(erasure_id: UUID, error: CarinaError) -> None:
    log.warning("erasure_not_finished", erasure_id=str(erasure_id), code=error.code)


def _finish(database: Database, erasure_id: UUID) -> int:
    """Remove an erasure of which nothing is left; return how many objects are."""
    with database.begin() as session:
        erasure = session.get(Erasure, erasure_id, with_for_update=True)
        if erasure is None:
            return 0
        waits = sa.exists().where(Dataset.id.in_(_unmarked(erasure, [*_OPEN_TASKS, TaskState.SUCCEEDED])))
        if not erasure.keys and not session.scalar(sa.select(waits)):
            session.delete(erasure)
        return len(erasure.keys)


def _erase_object(database: Database, store: ObjectStore, erasure_id: UUID, key: str) -> None:
    """Remove an object that nothing refers to, and take it off the list."""
    with database.begin() as session:
        session.execute(sa.select(sa.func.pg_advisory_xact_lock(_lock_of(key))))
        if not session.scalar(sa.select(_is_referred_to(key))):
            store.erase(key)
            gone = insert(ErasedObject).values(key_sha256=_digest_of(key))
            session.execute(
                gone.on_conflict_do_update(index_elements=["key_sha256"], set_={"erased_at": sa.func.now()})
            )
        rest = sa.update(Erasure).where(Erasure.id == erasure_id)
        session.execute(rest.values(keys=sa.func.array_remove(Erasure.keys, sa.cast(key, sa.Text))))


def _is_referred_to(key: str) -> sa.ColumnElement[bool]:
    folder, _, name = key.partition("/")
    sha256 = name.rpartition("/")[2].partition(".")[0]
    match folder:
        case "originals":
            return sa.exists().where(Image.sha256 == sha256)
        case "renditions":
            return sa.or_(
                sa.exists().where(Image.rendition_sha256 == sha256),
                sa.exists().where(Rendition.rendition_sha256 == sha256),
            )
        case "results":
            return sa.or_(
                sa.exists().where(Evaluation.report_sha256 == sha256),
                sa.exists().where(Evaluation.detections_sha256 == sha256),
                sa.exists().where(Dataset.failures_sha256 == sha256),
            )
    return sa.false()


def _unmarked(erasure: Erasure, states: Sequence[TaskState]) -> sa.Select[Any]:
    """The project's datasets in these states that may hold images of an erasure and were not looked at."""
    return sa.select(Dataset.id).where(
        Dataset.project_id == erasure.project_id,
        Dataset.created_at <= erasure.created_at,
        Dataset.id.not_in(erasure.dataset_ids),
        Dataset.state.in_(states),
        sa.literal(bool(erasure.sha256s)),
    )


def _mark_datasets(database: Database, store: ObjectStore, erasure_id: UUID) -> None:
    with database.begin() as session:
        erasure = session.get(Erasure, erasure_id)
        if erasure is None or not erasure.sha256s:
            return
        made = sa.select(Dataset.id, Dataset.digest, Dataset.failures_sha256).where(
            Dataset.id.in_(_unmarked(erasure, [TaskState.SUCCEEDED]))
        )
        datasets = session.execute(made).all()
        is_own = Image.project_id == erasure.project_id
        images = session.execute(sa.select(Image.sha256, is_own).where(Image.sha256.in_(erasure.sha256s))).all()
        others = sa.select(Dataset.digest).where(Dataset.project_id != erasure.project_id, Dataset.digest.is_not(None))
        digests_of_others = session.scalars(others.distinct()).all()
        lost = frozenset(erasure.sha256s) - {sha256 for sha256, is_own in images if is_own}  # sent again since
        imported = frozenset(session.scalars(sa.select(Rendition.sha256).where(Rendition.sha256.in_(lost))))
    # Other projects may have sent the same bytes, or made datasets from them; then they stay theirs.
    may_go = imported - {sha256 for sha256, _ in images}
    for digest in digests_of_others:  # none is read once nothing may go
        may_go -= _images_of(store, digest, may_go).keys()
    with database.begin() as session:
        _forget_renditions(session, erasure_id, may_go)
    for dataset_id, digest, failures_sha256 in datasets:
        renditions = list(_images_of(store, digest, lost).values())
        tells = failures_sha256 is not None and _names(store, failures_sha256, lost)
        with database.begin() as session:
            _mark(session, erasure_id, dataset_id, renditions, failures_sha256 if tells else None)


def _forget_renditions(session: Session, erasure_id: UUID, sha256s: frozenset[str]) -> None:
    """Have the renditions go that imports have made of these originals."""
    erasure = session.get(Erasure, erasure_id, with_for_update=True)
    if erasure is None:
        return
    made = sa.delete(Rendition).where(Rendition.sha256.in_(sha256s)).returning(Rendition.rendition_sha256)
    found = session.scalars(made.execution_options(synchronize_session=False)).all()
    erasure.keys = [*erasure.keys, *(key for key in map(rendition_key, found) if key not in erasure.keys)]


def _mark(
    session: Session, erasure_id: UUID, dataset_id: UUID, lost: Sequence[str], failures_sha256: str | None
) -> None:
    """Mark a dataset that has lost images, given by their renditions; end what works on it; remove what shows them."""
    erasure = session.get(Erasure, erasure_id, with_for_update=True)
    if erasure is None or dataset_id in erasure.dataset_ids:
        return
    erasure.dataset_ids = [*erasure.dataset_ids, dataset_id]
    keys = [rendition_key(sha256) for sha256 in lost]
    if failures_sha256 is not None:
        keys.append(result_key(failures_sha256, "jsonl"))
        session.execute(sa.update(Dataset).where(Dataset.id == dataset_id).values(failures_sha256=None))
    if lost:
        counted = sa.update(Dataset).where(Dataset.id == dataset_id)
        session.execute(counted.values(erased_count=Dataset.erased_count + len(lost)))
        why = {"code": DatasetErased.code, "reason": DatasetErased.meaning()}
        for task in (TrainingRun, Evaluation):
            at_work = sa.update(task).where(task.dataset_id == dataset_id, task.state.in_(_OPEN_TASKS))
            ended = {"state": TaskState.FAILED, "lease_owner": None, "lease_expires_at": None, **why}
            session.execute(at_work.values(**ended, finished_at=sa.func.now()))
        shown = sa.select(Evaluation).where(Evaluation.dataset_id == dataset_id)
        for evaluation in session.scalars(shown):
            for sha256, suffix in ((evaluation.report_sha256, "html"), (evaluation.detections_sha256, "json")):
                keys += [result_key(sha256, suffix)] if sha256 else []
            evaluation.report_sha256 = evaluation.detections_sha256 = None
    erasure.keys = [*erasure.keys, *(key for key in keys if key not in erasure.keys)]


def _images_of(store: ObjectStore, digest: str | None, sha256s: frozenset[str]) -> dict[str, str]:
    """Return those of these originals that a dataset's document has, each with the digest of its rendition."""
    if digest is None or not sha256s:
        return {}
    try:
        document = store.get(dataset_key(digest), sha256=digest)
    except ObjectMissing:
        return {}
    if not any(sha256.encode() in document for sha256 in sha256s):
        return {}
    images: list[dict[str, Any]] = json.loads(document)["images"]
    return {image["sha256"]: image["rendition_sha256"] for image in images if image["sha256"] in sha256s}


def _names(store: ObjectStore, failures_sha256: str, sha256s: frozenset[str]) -> bool:
    try:
        lines = store.get(result_key(failures_sha256, "jsonl"), sha256=failures_sha256)
    except ObjectMissing:
        return False
    return any(sha256.encode() in lines for sha256 in sha256s)


def _digest_of(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def _lock_of(key: str) -> sa.ColumnElement[int]:
    return sa.func.hashtextextended(key, 0)
