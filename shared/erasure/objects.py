"""Removes objects that no row refers to any more. Code that adds a reference to an object holds it under a lock."""

import hashlib
from collections.abc import Collection
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import InstrumentedAttribute, Session

from shared.database import is_any
from shared.errors import TransientError
from shared.object_store import ObjectStore, digest_in
from shared.tables import Dataset, ErasedObject, Erasure, Evaluation, Image, Project, Rendition, TrainingRun

_EVENT_FILES = sa.func.jsonb_each_text(TrainingRun.events).table_valued(
    "key", sa.column("value", sa.Text), joins_implicitly=True
)
#: The columns that refer to objects, by the folder of the key. They hold digests.
REFERENCES: dict[str, tuple[sa.ColumnElement[Any] | InstrumentedAttribute[Any], ...]] = {
    "originals": (Image.sha256,),
    "renditions": (Image.rendition_sha256, Rendition.rendition_sha256),
    "results": (Evaluation.report_sha256, Evaluation.detections_sha256, Dataset.failures_sha256, _EVENT_FILES.c.value),
}
#: How long an erased object is recorded: much longer than the time between storing a file and writing its row.
_REMEMBERED = timedelta(hours=1)


class ErasedMeanwhile(TransientError):
    """The same image was erased while the file was processed. Send it again."""

    code = "erased_meanwhile"


def hold_object(session: Session, store: ObjectStore, key: str) -> None:
    """Keep an object from being erased until the transaction, which adds a reference to it, ends.

    Raises `ErasedMeanwhile` if it was erased after it was stored.
    """
    session.execute(sa.select(sa.func.pg_advisory_xact_lock_shared(_lock_of(key))))
    was_erased = session.scalar(sa.select(sa.exists().where(ErasedObject.key_sha256 == _digest_of(key))))
    if was_erased and not store.has(key):
        raise ErasedMeanwhile


def discard(session: Session, key: str) -> None:
    """Schedule the deletion of an object whose image has been erased in the meantime."""
    session.execute(sa.insert(Erasure).values(study_id=None, sha256s=[], keys=[key], dataset_ids=[]))


def erase_if_unused(session: Session, store: ObjectStore, key: str) -> None:
    """Delete an object if no row refers to it."""
    session.execute(sa.select(sa.func.pg_advisory_xact_lock(_lock_of(key))))
    if find_unused(session, [key]):
        store.erase(key)
        erased = insert(ErasedObject).values(key_sha256=_digest_of(key))
        session.execute(erased.on_conflict_do_update(index_elements=["key_sha256"], set_={"erased_at": sa.func.now()}))


def find_unused(session: Session, keys: Collection[str]) -> set[str]:
    """Return those of these keys, all of one folder, to which no row refers."""
    by_digest = {digest_in(key): key for key in keys}
    for column in REFERENCES.get(next(iter(keys)).partition("/")[0], ()) if keys else ():
        found = sa.select(column).where(is_any(column, by_digest))
        if column is Image.sha256:
            projects = sa.select(Project.id)  # for the index, which begins with the project
            found = found.where(Image.project_id.in_(projects), Image.original_deleted_at.is_(None))
        elif column is _EVENT_FILES.c.value:
            found = found.select_from(TrainingRun, _EVENT_FILES)
        for sha256 in session.scalars(found):
            by_digest.pop(sha256, None)
    return set(by_digest.values())


def forget_erased(session: Session) -> None:
    """Delete the records of objects that were erased more than an hour ago."""
    session.execute(sa.delete(ErasedObject).where(ErasedObject.erased_at < sa.func.now() - _REMEMBERED))


def _digest_of(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def _lock_of(key: str) -> sa.ColumnElement[int]:
    return sa.func.hashtextextended(key, 0)
