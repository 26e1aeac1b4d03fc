"""Finishes an erasure after its rows are deleted: marks datasets and deletes objects."""

from uuid import UUID

import sqlalchemy as sa
import structlog

from shared.database import Database
from shared.erasure.datasets import mark_datasets, may_mark_datasets
from shared.erasure.objects import erase_if_unused, forget_erased
from shared.errors import CarinaError, DatabaseUnavailable, ObjectStoreUnavailable
from shared.object_store import ObjectStore
from shared.tables import Erasure

log = structlog.get_logger()


def finish_all(database: Database, store: ObjectStore) -> None:
    """Finish all erasures, and delete old records of erased objects.

    During an outage of the object store or the database, the rest waits for the next call.
    """
    with database.begin() as session:
        ids = session.scalars(sa.select(Erasure.id).order_by(Erasure.id)).all()
        forget_erased(session)
    for erasure_id in ids:
        try:
            mark_datasets(database, store, erasure_id)
            _delete_objects(database, store, erasure_id)
        except (ObjectStoreUnavailable, DatabaseUnavailable) as error:
            log.warning("erasures_wait", code=error.code)
            return
        except CarinaError as error:
            _warn(erasure_id, error)


def finish(database: Database, store: ObjectStore, erasure_id: UUID) -> tuple[int, set[UUID]]:
    """Do as much of an erasure as possible now. Concurrent calls are safe.

    Returns how many objects are left, and the models that have learnt from the erased images.
    """
    learners: set[UUID] = set()
    try:
        learners = mark_datasets(database, store, erasure_id)
        return _delete_objects(database, store, erasure_id), learners
    except CarinaError as error:
        _warn(erasure_id, error)
        return _close(database, erasure_id), learners


def _delete_objects(database: Database, store: ObjectStore, erasure_id: UUID) -> int:
    with database.begin() as session:
        erasure = session.get(Erasure, erasure_id)
        keys = list(erasure.keys) if erasure else []
    for key in keys:
        with database.begin() as session:
            erase_if_unused(session, store, key)
            rest = sa.update(Erasure).where(Erasure.id == erasure_id)
            session.execute(rest.values(keys=sa.func.array_remove(Erasure.keys, sa.cast(key, sa.Text))))
    return _close(database, erasure_id)


def _warn(erasure_id: UUID, error: CarinaError) -> None:
    log.warning("erasure_not_finished", erasure_id=str(erasure_id), code=error.code)


def _close(database: Database, erasure_id: UUID) -> int:
    """Delete the row of an erasure if no work is left; return how many objects are left."""
    with database.begin() as session:
        erasure = session.get(Erasure, erasure_id, with_for_update=True)
        if erasure is None:
            return 0
        if not erasure.keys and not may_mark_datasets(session, erasure):
            session.delete(erasure)
        return len(erasure.keys)
