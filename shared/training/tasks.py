"""The leases of the trainer's tasks: imports, trainings, evaluations and decisions.

These are rows of different tables with the same columns (`tables.Task`).
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, ClassVar
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased

from shared.erasure import require_whole
from shared.errors import NotFound, Place, RequestError, plain_code
from shared.leases import (
    Lease,
    change,
    change_held,
    expired,
    final_values,
    in_seconds,
    leased_values,
    renew,
    waiting_values,
)
from shared.tables import Dataset, Evaluation, GateDecision, Task, TrainingRun
from shared.training.groups import is_led
from shared.vocabulary.states import Phase, TaskState

#: Tables by the name of the kind, which is an argument of the task's process. Quick kinds come first, so that a
#: training does not delay the evaluation of the previous one. A decision needs evaluations, so it comes after them.
KINDS: dict[str, type[Task]] = {
    "evaluation": Evaluation,
    "gate": GateDecision,
    "dataset": Dataset,
    "training": TrainingRun,
}

#: Kinds whose oldest task goes first even while it pauses after a loss: a newer one may take days. An evaluation takes
#: minutes, so an idle trainer begins the next one.
IN_ORDER = frozenset({"training"})

LOST_TRAINER = plain_code("trainer_lost", "The trainer of the task died or hung, in every attempt.", Place.TASK)
_LOST = {"code": LOST_TRAINER, "reason": "The trainer that had the task stopped responding."}
#: Trainers renew a lease about once a second. A trainer that has not renewed for this many seconds may be dead.
SILENT_S = 5.0


class TaskIsFinal(RequestError):
    """The task has finished and cannot be cancelled."""

    code = "task_is_final"
    status = 409


class TaskNotResumable(RequestError):
    """Only a failed or cancelled training can be resumed."""

    code = "task_not_resumable"
    status = 409


@dataclass(frozen=True, kw_only=True)
class TaskClaim(Lease):
    """A task that this trainer holds under a lease."""

    waiting_state: ClassVar = TaskState.INTERRUPTED

    kind: str
    task_id: UUID

    @property
    def table(self) -> type[Task]:
        """The table of the task's kind."""
        return KINDS[self.kind]

    @property
    def key(self) -> tuple[UUID]:
        """The task's id."""
        return (self.task_id,)


def claim_task(
    session: Session, owner: str, *, lease_s: float, group: str | None = None, kinds: Collection[str] = KINDS.keys()
) -> TaskClaim | None:
    """Lease the oldest waiting task of the first kind that has one. Rows locked by another trainer are skipped.

    A training whose attempt was lost keeps its place: no newer one is started during its pause, or while its trainer is
    silent and its lease has not expired. A training that a group has begun goes on in that `group`, as long as its
    leader is alive.
    """
    for kind, row in KINDS.items():
        if kind not in kinds:
            continue
        may_begin = row.available_at <= sa.func.now()
        waiting = (
            sa.select(row.id, may_begin)
            .where(row.state.in_(TaskState.in_phase(Phase.WAITING)))
            .where(sa.true() if kind in IN_ORDER else may_begin)
            .where(sa.and_(_next_of_its_schedule(), _is_for(group)) if row is TrainingRun else sa.true())
            .order_by(row.id)
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        found = session.execute(waiting).first()
        if found is None:
            continue
        task_id, ready = found
        if not ready or (kind in IN_ORDER and _waits_for_a_silent_one(session, row, task_id, lease_s)):
            continue
        values = leased_values(row, TaskState.RUNNING, owner, lease_s) | {"progress": _measured(row)}
        if row is TrainingRun:
            values |= {"trainer_group": group, "rendezvous": None, "machines": []}
        taken = (
            sa.update(row)
            .where(row.id == task_id)
            .values(**values, started_at=sa.func.coalesce(row.started_at, sa.func.now()))
            .returning(row.attempt)
        )
        attempt = session.execute(taken).scalar_one()
        return TaskClaim(kind=kind, task_id=task_id, owner=owner, attempt=attempt)
    return None


def update_task(session: Session, claim: TaskClaim, **values: Any) -> bool:
    """Change columns of a task; return whether it was still held."""
    return change_held(session, [claim], **values) > 0


def renew_task(session: Session, claim: TaskClaim, *, lease_s: float, log_tail: str | None = None) -> bool:
    """Extend the lease to `lease_s` from now; return whether the task was still held."""
    return renew(session, [claim], lease_s=lease_s, **({} if log_tail is None else {"log_tail": log_tail})) > 0


def finish_task(
    session: Session,
    claim: TaskClaim,
    state: TaskState,
    *,
    code: str | None = None,
    reason: str | None = None,
    **values: Any,
) -> bool:
    """End a task in a final state; return whether it was still held."""
    return update_task(session, claim, **final_values(state), code=code, reason=reason, **values)


def interrupt_task(
    session: Session, claim: TaskClaim, *, code: str | None = None, reason: str | None = None, pause_s: float = 0
) -> bool:
    """Release a task because its trainer stops or a server is unavailable. It continues from its last checkpoint."""
    return update_task(session, claim, **_waiting(claim.table, pause_s), code=code, reason=reason)


def lose_task(session: Session, claim: TaskClaim, *, code: str, reason: str, max_attempts: int, pause_s: float) -> bool:
    """Release a task whose processes died, or fail it after `max_attempts` losses without progress."""
    losses = session.get_one(claim.table, claim.task_id).losses + 1
    if losses >= max_attempts:
        return finish_task(session, claim, TaskState.FAILED, code=code, reason=reason, losses=losses)
    return update_task(session, claim, **_waiting(claim.table, pause_s), code=code, reason=reason, losses=losses)


def expire_tasks(session: Session, *, max_attempts: int) -> int:
    """Release the tasks whose lease has expired, and fail those that were lost too often; return how many."""
    count = 0
    for row in KINDS.values():
        used_up = row.losses + 1 >= max_attempts
        for which, values in (
            (used_up, final_values(TaskState.FAILED)),
            (~used_up, _waiting(row)),
        ):
            silent = expired(row, TaskState.RUNNING, which)
            count += len(change(session, row, silent, **values, **_LOST, losses=row.losses + 1))
    return count


def cancel_task(session: Session, row: type[Task], task_id: UUID) -> None:
    """Cancel a task; raise `NotFound` and `TaskIsFinal`. The trainer of a running task stops within seconds."""
    open_task = sa.and_(row.id == task_id, row.state.in_(TaskState.open()))
    if not change(session, row, open_task, **final_values(TaskState.CANCELLED)):
        if session.get(row, task_id) is None:
            raise NotFound(f"There is no {row.__tablename__} {task_id}.")
        raise TaskIsFinal


def resume_training(session: Session, run_id: UUID) -> TrainingRun:
    """Queue a failed or cancelled training again; it continues from its last checkpoint, before later trainings.

    Raises `NotFound`, `TaskNotResumable`, and `DatasetErased` if images of its dataset were erased since.
    """
    run = session.get(TrainingRun, run_id)
    if run is None:
        raise NotFound(f"There is no training {run_id}.")
    require_whole(session.get_one(Dataset, run.dataset_id))
    ended = sa.and_(TrainingRun.id == run_id, TrainingRun.state.in_((TaskState.FAILED, TaskState.CANCELLED)))
    state = TaskState.INTERRUPTED if run.attempt else TaskState.QUEUED
    again = _waiting(TrainingRun) | {"state": state, "finished_at": None, "losses": 0}
    if not change(session, TrainingRun, ended, **again):
        raise TaskNotResumable
    session.refresh(run)
    return run


def _waiting(row: type[Task], pause_s: float = 0) -> dict[str, Any]:
    """Return the new columns of a task that waits for its next attempt.

    The progress of the last attempt is cleared, because the next one begins at the checkpoint.
    """
    return waiting_values(TaskState.INTERRUPTED, pause_s) | {"progress": _measured(row)}


def _measured(row: type[Task]) -> sa.ColumnElement[Any]:
    """Return the part of a task's progress that outlives an attempt: the last measured value of a training."""
    return sa.func.jsonb_strip_nulls(sa.func.jsonb_build_object("ap40", row.progress["ap40"]))


def _is_for(group: str | None) -> sa.ColumnElement[bool]:
    """The condition that a trainer of this group, or of none, may take a training."""
    own = sa.false() if group is None else TrainingRun.trainer_group == group
    return sa.or_(TrainingRun.trainer_group.is_(None), own, ~is_led())


def _waits_for_a_silent_one(session: Session, row: type[Task], task_id: UUID, lease_s: float) -> bool:
    """Whether an older task has a silent trainer and will be released by a sweep when its lease expires."""
    silent = (
        row.state == TaskState.RUNNING,
        row.id < task_id,
        row.lease_expires_at < in_seconds(lease_s - min(SILENT_S, lease_s / 2)),
        row.lease_expires_at > in_seconds(-lease_s),  # without a sweep, the newer task must not wait for ever
    )
    return session.scalar(sa.select(row.id).where(*silent).limit(1)) is not None


def _next_of_its_schedule() -> sa.ColumnElement[bool]:
    """The condition that all earlier runs of a training's schedule are final: `Overlap.QUEUE` waits for them."""
    earlier = aliased(TrainingRun)
    return ~sa.exists().where(
        earlier.schedule_id == TrainingRun.schedule_id,
        earlier.due_at < TrainingRun.due_at,
        earlier.state.in_(TaskState.open()),
    )
