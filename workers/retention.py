"""Deletes data whose retention time has passed, in small batches and for a limited time in each run."""

import time
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from functools import partial

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from shared.database import Database
from shared.erasure.patients import read_patients
from shared.erasure.reconciliation import Reconciliation
from shared.erasure.retention import AT_A_TIME, Retention, days_kept, delete_some, is_older
from shared.erasure.stored import keep_counts
from shared.object_store import ObjectStore
from shared.settings import Settings
from shared.tables import AuditEvent, Project, QueueSample, Worker
from shared.vocabulary.retention import Retained

#: Seconds after which a run leaves the rest to the next one.
MAX_RUN_S = 60.0
#: The id of the row that keeps the work of deleted rows of a kind of worker, so that the counters of `/metrics` stay.
_PAST = "past@"
_SUMMED = ("batches", "images", "step_s", "expired_leases")


class RetentionRun:
    """One run over all projects."""

    def __init__(self, settings: Settings, database: Database, store: ObjectStore) -> None:
        self._settings = settings
        self._database = database
        self._store = store
        self._retention = Retention(Reconciliation(database, store))
        self._ends_at = time.monotonic() + MAX_RUN_S

    @property
    def is_cut_short(self) -> bool:
        """Whether time was up before all was done."""
        return time.monotonic() >= self._ends_at

    def run(self) -> Counter[str]:
        """Delete old data, read the patients of older images, and count bytes; return how many rows of each kind."""
        days = self._settings
        counts: Counter[str] = Counter()
        with self._database.begin() as session:
            projects = session.execute(sa.select(Project.id, Project.retention)).all()
        for project_id, retention in projects:
            for kind in Retained:
                if kept := days_kept(kind, retention, self._settings):
                    step = partial(
                        self._retention.delete_some, project_id=project_id, kind=kind, age=timedelta(days=kept)
                    )
                    counts[kind] += self._repeat(step)
        if days.audit_days:
            old = AuditEvent.project_id.is_(None) & is_older(AuditEvent.created_at, timedelta(days=days.audit_days))
            counts["audit"] += self._repeat(lambda session: delete_some(session, AuditEvent.id, old))
        old_samples = is_older(QueueSample.at, timedelta(days=days.samples_days))
        counts["samples"] = self._repeat(lambda session: delete_some(session, QueueSample.at, old_samples))
        counts["workers"] = self._repeat(lambda session: _delete_workers(session, days.workers_days))
        while not self.is_cut_short and (read := read_patients(self._database, self._store, AT_A_TIME)):
            counts["patients"] += read
        with self._database.begin() as session:
            keep_counts(session)
        return counts

    def _repeat(self, step: Callable[[Session], int]) -> int:
        count = 0
        while not self.is_cut_short:
            with self._database.begin() as session:
                deleted = step(session)
            count += deleted
            if deleted < AT_A_TIME:
                break
        return count


def _delete_workers(session: Session, days: int) -> int:
    """Delete the rows of ended processes, and add their work to the row of the past of their kind."""
    is_over = is_older(sa.func.coalesce(Worker.stopped_at, Worker.seen_at), timedelta(days=days))
    old = sa.select(Worker).where(is_over, Worker.id.not_like(f"{_PAST}%")).limit(AT_A_TIME)
    rows = session.scalars(old.with_for_update(skip_locked=True)).all()
    for row in rows:
        work = {name: getattr(row, name) for name in _SUMMED}
        past = insert(Worker).values(id=f"{_PAST}{row.stage}", stage=row.stage, stopped_at=sa.func.now(), **work)
        added = {name: getattr(Worker, name) + past.excluded[name] for name in _SUMMED}
        session.execute(past.on_conflict_do_update(index_elements=[Worker.id], set_=added))
        session.delete(row)
    return len(rows)
