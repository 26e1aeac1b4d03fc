"""Decides which stored checkpoints are still needed."""

from collections.abc import Iterable
from datetime import timedelta
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared.object_store import checkpoint_key
from shared.tables import TrainingRun
from shared.vocabulary.states import TaskState

CHECKPOINTS = "checkpoints/"


def unneeded(session: Session, keys: Iterable[str], *, days: int) -> set[str]:
    """Return those of these keys whose object can be deleted, and let no row name them any more.

    A training that is not final needs all its checkpoints. A failed or cancelled one can be resumed for `days` after
    its end, and needs the last and the best one, which its row names. A training that has succeeded needs none.
    """
    by_run: dict[UUID, set[str]] = {}
    for key in keys:
        by_run.setdefault(UUID(key.removeprefix(CHECKPOINTS).partition("/")[0]), set()).add(key)
    resumable = sa.and_(
        TrainingRun.state.in_((TaskState.FAILED, TaskState.CANCELLED)),
        TrainingRun.finished_at > sa.func.now() - timedelta(days=days),
    )
    best = TrainingRun.best_checkpoint["sha256"].astext
    ended = sa.select(
        TrainingRun.id, sa.case((resumable, TrainingRun.checkpoint_sha256)), sa.case((resumable, best))
    ).where(TrainingRun.id.in_(by_run), TrainingRun.state.not_in(TaskState.open()))
    found: set[str] = set()
    for run_id, *kept in session.execute(ended.with_for_update()).all():
        found |= by_run[run_id] - {checkpoint_key(run_id, sha256) for sha256 in kept if sha256}
        if not any(kept):
            none_left = {"checkpoint_sha256": None, "best_checkpoint": sa.null()}
            session.execute(sa.update(TrainingRun).where(TrainingRun.id == run_id).values(none_left))
    return found
