"""Marks datasets that contain erased images: they can no longer be used for training or evaluation."""

import json
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared.access.audit import ERASURE, record
from shared.database import Database
from shared.errors import ObjectMissing, Place, RequestError
from shared.leases import final_values
from shared.object_store import ObjectStore, dataset_key, rendition_key, result_key
from shared.tables import Dataset, Erasure, Evaluation, Image, Rendition, TrainingRun
from shared.vocabulary.states import TaskState


class DatasetErased(RequestError):
    """Images of the dataset have been erased. Create the dataset again."""

    code = "dataset_has_erased_images"
    places = Place.REQUEST | Place.TASK
    status = 409


def require_whole(dataset: Dataset) -> None:
    """Raise `DatasetErased` if images of the dataset were erased."""
    if dataset.erased_count:
        raise DatasetErased(
            f"{dataset.erased_count} images of the dataset {dataset.id} were erased since it was made; "
            "make the dataset anew."
        )


def _unmarked(erasure: Erasure, states: Sequence[TaskState]) -> sa.Select[Any]:
    """Select the project's datasets in these states that may contain erased images and are not checked yet."""
    return sa.select(Dataset.id).where(
        Dataset.project_id == erasure.project_id,
        Dataset.created_at <= erasure.created_at,
        Dataset.id.not_in(erasure.dataset_ids),
        Dataset.state.in_(states),
        sa.literal(bool(erasure.sha256s)),
    )


def may_mark_datasets(session: Session, erasure: Erasure) -> bool:
    """Whether there are finished or unfinished datasets that may contain erased images and are not checked yet."""
    unmarked = _unmarked(erasure, [*TaskState.open(), TaskState.SUCCEEDED])
    return session.scalar(sa.select(unmarked.exists())) or False


def mark_datasets(database: Database, store: ObjectStore, erasure_id: UUID) -> set[UUID]:
    """Mark the finished datasets that contain erased images, and add objects that show these to the erasure.

    Returns the models that have learnt from these images.
    """
    with database.begin() as session:
        erasure = session.get(Erasure, erasure_id)
        if erasure is None or not erasure.sha256s:
            return set()
        made = sa.select(Dataset.id, Dataset.digest, Dataset.failures_sha256).where(
            Dataset.id.in_(_unmarked(erasure, [TaskState.SUCCEEDED]))
        )
        datasets = session.execute(made).all()
        is_own = Image.project_id == erasure.project_id
        images = session.execute(sa.select(Image.sha256, is_own).where(Image.sha256.in_(erasure.sha256s))).all()
        others = sa.select(Dataset.digest).where(Dataset.project_id != erasure.project_id, Dataset.digest.is_not(None))
        digests_of_others = session.scalars(others.distinct()).all()
        lost = frozenset(erasure.sha256s) - {sha256 for sha256, is_own in images if is_own}  # received again since
        imported = frozenset(session.scalars(sa.select(Rendition.sha256).where(Rendition.sha256.in_(lost))))
    # Keep renditions of images that any project still has, or that a dataset of another project contains.
    may_go = imported - {sha256 for sha256, _ in images}
    for digest in digests_of_others:
        may_go -= _images_of(store, digest, may_go).keys()
    with database.begin() as session:
        _forget_renditions(session, erasure_id, may_go)
    models: set[UUID] = set()
    for dataset_id, digest, failures_sha256 in datasets:
        renditions = list(_images_of(store, digest, lost).values())
        is_named = failures_sha256 is not None and _are_named(store, failures_sha256, lost)
        with database.begin() as session:
            models |= _mark(session, erasure_id, dataset_id, renditions, failures_sha256 if is_named else None)
    return models


def find_learners(session: Session, dataset_id: UUID) -> list[UUID]:
    """Return the models that were trained on a dataset, and those that were trained from these."""
    run = sa.select(TrainingRun.model_id).where(TrainingRun.dataset_id == dataset_id, TrainingRun.model_id.is_not(None))
    learners = run.cte("learner", recursive=True)
    heirs = sa.select(TrainingRun.model_id).join(learners, TrainingRun.initial_model_id == learners.c.model_id)
    learners = learners.union(heirs.where(TrainingRun.model_id.is_not(None)))
    return sorted(session.scalars(sa.select(learners.c.model_id)))


def _forget_renditions(session: Session, erasure_id: UUID, sha256s: frozenset[str]) -> None:
    """Delete the rows of renditions that imports made of these originals, and add their objects to the erasure."""
    erasure = session.get(Erasure, erasure_id, with_for_update=True)
    if erasure is None:
        return
    made = sa.delete(Rendition).where(Rendition.sha256.in_(sha256s)).returning(Rendition.rendition_sha256)
    found = session.scalars(made.execution_options(synchronize_session=False)).all()
    erasure.keys = [*erasure.keys, *(key for key in map(rendition_key, found) if key not in erasure.keys)]


def _mark(
    session: Session, erasure_id: UUID, dataset_id: UUID, lost: Sequence[str], failures_sha256: str | None
) -> set[UUID]:
    """Mark a dataset whose images with these renditions were erased; return the models that have learnt from them.

    Ends its open tasks, adds the objects that show the images to the erasure, and records the models in the audit.
    """
    erasure = session.get(Erasure, erasure_id, with_for_update=True)
    if erasure is None or dataset_id in erasure.dataset_ids:
        return set()
    learners: list[UUID] = []
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
            at_work = sa.update(task).where(task.dataset_id == dataset_id, task.state.in_(TaskState.open()))
            session.execute(at_work.values(**final_values(TaskState.FAILED), **why))
        shown = sa.select(Evaluation).where(Evaluation.dataset_id == dataset_id)
        for evaluation in session.scalars(shown):
            for sha256, suffix in ((evaluation.report_sha256, "html"), (evaluation.detections_sha256, "json")):
                keys += [result_key(sha256, suffix)] if sha256 else []
            evaluation.report_sha256 = evaluation.detections_sha256 = None
        learners = find_learners(session, dataset_id)
        subject = {"study_id": erasure.study_id, "dataset_id": dataset_id, "images": len(lost)} | {
            "model_ids": [str(model_id) for model_id in learners]
        }
        record(session, action="dataset.erase", subject=subject, project_id=erasure.project_id, actor=ERASURE)
    erasure.keys = [*erasure.keys, *(key for key in keys if key not in erasure.keys)]
    return set(learners)


def _images_of(store: ObjectStore, digest: str | None, sha256s: frozenset[str]) -> dict[str, str]:
    """Return the originals in a dataset's document that are among `sha256s`, with the digests of their renditions."""
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


def _are_named(store: ObjectStore, failures_sha256: str, sha256s: frozenset[str]) -> bool:
    try:
        lines = store.get(result_key(failures_sha256, "jsonl"), sha256=failures_sha256)
    except ObjectMissing:
        return False
    return any(sha256.encode() in lines for sha256 in sha256s)
