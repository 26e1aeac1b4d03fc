"""The trainer's tasks: taking one, keeping it, and giving it back.

Imports, trainings, evaluations and decisions are rows of different tables with the same columns (`tables.Task`). As
with jobs, every change is one UPDATE under the fence `(lease_owner, attempt)`: zero rows mean that the task is
somebody else's by now, or was cancelled.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased

from shared.errors import NotFound, Place, RequestError, plain_code
from shared.queue.claim import in_seconds
from shared.tables import Dataset, Evaluation, GateDecision, Task, TrainingRun
from shared.vocabulary.states import TaskState

#: By the name under which a process is told its task. The quick kinds come first, so that a training does not hold up
#: the evaluation of the one before; a decision waits for evaluations, and so comes after them.
KINDS: dict[str, type[Task]] = {
    "evaluation": Evaluation,
    "gate": GateDecision,
    "dataset": Dataset,
    "training": TrainingRun,
}

#: Kinds of which the oldest goes first even while it pauses after a loss: a younger one may take days.
IN_ORDER = frozenset({"evaluation", "training"})

LOST_TRAINER = plain_code("trainer_lost", "The trainer of the task died or hung, in every attempt.", Place.TASK)
_FELL_SILENT = "The trainer that had the task fell silent."
#: Trainers renew a lease about once a second. One that has not done so for this long may be gone.
SILENT_S = 5.0


class TaskIsFinal(RequestError):
    """The task has finished and cannot be cancelled."""

    code = "task_is_final"
    status = 409


@dataclass(frozen=True)
class TaskClaim:
    """A task that this trainer holds under a lease."""

    kind: str
    task_id: UUID
    owner: str
    attempt: int

    @property
    def table(self) -> type[Task]:
        """The table that the task's row is in."""
        return KINDS[self.kind]

    def fenced(self) -> sa.ColumnElement[bool]:
        """The condition under which the task is still ours."""
        row = self.table
        return sa.and_(
            row.id == self.task_id,
            row.lease_owner == self.owner,
            row.attempt == self.attempt,
            row.lease_expires_at > sa.func.now(),
        )


def claim_task(session: Session, owner: str, *, lease_s: float) -> TaskClaim | None:
    """Lease the oldest waiting task of the first kind that has one; skips rows that another trainer is claiming.

    A training or evaluation whose attempt was lost keeps its place: none that was asked for later is begun while it
    pauses, or while its trainer is silent and its lease has not ended.
    """
    for kind, row in KINDS.items():
        may_begin = row.available_at <= sa.func.now()
        waiting = (
            sa.select(row.id, may_begin)
            .where(row.state.in_((TaskState.QUEUED, TaskState.INTERRUPTED)))
            .where(sa.true() if kind in IN_ORDER else may_begin)
            .where(_next_of_its_schedule() if row is TrainingRun else sa.true())
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
        taken = (
            sa.update(row)
            .where(row.id == task_id)
            .values(
                state=TaskState.RUNNING,
                lease_owner=owner,
                lease_expires_at=in_seconds(lease_s),
                attempt=row.attempt + 1,
                started_at=sa.func.coalesce(row.started_at, sa.func.now()),
            )
            .returning(row.attempt)
        )
        return TaskClaim(kind, task_id, owner, session.execute(taken).scalar_one())
    return None


def update_task(session: Session, claim: TaskClaim, **values: Any) -> bool:
    """Change columns of a task that is still ours; return whether it was."""
    change = sa.update(claim.table).where(claim.fenced()).values(**values).returning(claim.table.id)
    return session.scalar(change.execution_options(synchronize_session=False)) is not None


def renew_task(session: Session, claim: TaskClaim, *, lease_s: float, log_tail: str | None = None) -> bool:
    """Move the lease's end to `lease_s` from now; return whether the task is still ours."""
    values: dict[str, Any] = {"lease_expires_at": in_seconds(lease_s)}
    if log_tail is not None:
        values["log_tail"] = log_tail
    return update_task(session, claim, **values)


def finish_task(
    session: Session,
    claim: TaskClaim,
    state: TaskState,
    *,
    code: str | None = None,
    reason: str | None = None,
    **values: Any,
) -> bool:
    """Bring a task that is still ours to its end; return whether it was."""
    return update_task(session, claim, **_final(state), code=code, reason=reason, **values)


def interrupt_task(
    session: Session, claim: TaskClaim, *, code: str | None = None, reason: str | None = None, pause_s: float = 0
) -> bool:
    """Give a task back, to be gone on with from its last checkpoint: its trainer stops, or a server is away."""
    return update_task(session, claim, **_waiting(pause_s), code=code, reason=reason)


def lose_task(session: Session, claim: TaskClaim, *, code: str, reason: str, max_attempts: int, pause_s: float) -> bool:
    """Give back a task that went down, or fail it where that has happened too often since it last got on."""
    losses = session.get_one(claim.table, claim.task_id).losses + 1
    if losses >= max_attempts:
        return finish_task(session, claim, TaskState.FAILED, code=code, reason=reason, losses=losses)
    return update_task(session, claim, **_waiting(pause_s), code=code, reason=reason, losses=losses)


def lose_tasks_of(session: Session, is_gone: Callable[[str], bool], *, max_attempts: int) -> int:
    """Give back, as `expire_tasks` does, the tasks of trainers that are known to be gone; return how many."""
    count = 0
    for kind, row in KINDS.items():
        held = sa.select(row).where(row.state == TaskState.RUNNING).with_for_update(skip_locked=True)
        for task in session.scalars(held).all():
            claim = TaskClaim(kind, task.id, str(task.lease_owner), task.attempt)
            count += is_gone(claim.owner) and lose_task(
                session, claim, code=LOST_TRAINER, reason=_FELL_SILENT, max_attempts=max_attempts, pause_s=0
            )
    return count


def expire_tasks(session: Session, *, max_attempts: int) -> int:
    """Give back the tasks of silent trainers; fail those that have lost too many. Return how many there were."""
    count = 0
    for row in KINDS.values():
        expired = (row.state == TaskState.RUNNING, row.lease_expires_at <= sa.func.now())
        used_up = row.losses + 1 >= max_attempts
        lost = {
            "code": LOST_TRAINER,
            "reason": _FELL_SILENT,
            "losses": row.losses + 1,
        }
        for which, values in ((used_up, _final(TaskState.FAILED)), (~used_up, _waiting(0))):
            skipping = sa.select(row.id).where(*expired, which).with_for_update(skip_locked=True)
            change = sa.update(row).where(row.id.in_(skipping)).values(**values, **lost).returning(row.id)
            count += len(session.execute(change.execution_options(synchronize_session=False)).all())
    return count


def cancel_task(session: Session, row: type[Task], task_id: UUID) -> None:
    """End a task, also one that runs, whose trainer notices within seconds; raises `NotFound` and `TaskIsFinal`."""
    open_states = [state for state in TaskState if not state.is_final]
    change = (
        sa.update(row).where(row.id == task_id, row.state.in_(open_states)).values(**_final(TaskState.CANCELLED))
    ).returning(row.id)
    if session.scalar(change.execution_options(synchronize_session=False)) is None:
        if session.get(row, task_id) is None:
            raise NotFound(f"There is no {row.__tablename__} {task_id}.")
        raise TaskIsFinal


def _waits_for_a_silent_one(session: Session, row: type[Task], task_id: UUID, lease_s: float) -> bool:
    """Whether an older task's trainer has not renewed its lease lately; a sweep gives it back when the lease ends."""
    silent = (
        row.state == TaskState.RUNNING,
        row.id < task_id,
        row.lease_expires_at < in_seconds(lease_s - min(SILENT_S, lease_s / 2)),
        row.lease_expires_at > in_seconds(-lease_s),  # Where nothing sweeps, the younger one does not wait for ever.
    )
    return session.scalar(sa.select(row.id).where(*silent).limit(1)) is not None


def _next_of_its_schedule() -> sa.ColumnElement[bool]:
    """Whether all earlier runs of a training's schedule have come to their end: with `Overlap.QUEUE` it waits."""
    earlier = aliased(TrainingRun)
    still = [state for state in TaskState if not state.is_final]
    return ~sa.exists().where(
        earlier.schedule_id == TrainingRun.schedule_id,
        earlier.due_at < TrainingRun.due_at,
        earlier.state.in_(still),
    )


def _final(state: TaskState) -> Mapping[str, Any]:
    return {"state": state, "lease_owner": None, "lease_expires_at": None, "finished_at": sa.func.now()}


def _waiting(pause_s: float) -> Mapping[str, Any]:
    return {
        "state": TaskState.INTERRUPTED,
        "lease_owner": None,
        "lease_expires_at": None,
        "available_at": in_seconds(pause_s),
    }
