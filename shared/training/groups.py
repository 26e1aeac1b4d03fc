"""The machines of groups of trainers: their rows, and the trainings that they take part in."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from shared.leases import in_seconds
from shared.queue.workers import SEEN_WITHIN
from shared.tables import TrainerMachine, TrainingRun
from shared.vocabulary.states import TaskState

#: A machine that has been silent for longer is not counted on for a new attempt. It marks its row about once a second.
PRESENT_S = 10.0


@dataclass(frozen=True)
class Joined:
    """One attempt of a training that a machine takes part in."""

    run_id: UUID
    attempt: int
    lease_owner: str
    rendezvous: str
    #: The owners of the machines, in the order of their ranks; the leader is the first.
    machines: tuple[str, ...]


@dataclass(frozen=True)
class Membership:
    """The place of a trainer in its group."""

    group: str
    #: The number of the machine; 0 leads.
    node_rank: int
    owner: str
    #: Where the other machines reach this one, and the port on which `carina doctor` tries it.
    address: str
    port: int | None = None


def take_place(session: Session, member: Membership) -> None:
    """Enter a machine in its group. It replaces an earlier process of this machine."""
    session.execute(sa.delete(TrainerMachine).where(_is_at(member)))
    mark_machine(session, member)


def mark_machine(session: Session, member: Membership, **values: Any) -> bool:
    """Record that a machine is alive, with further columns of its row.

    Returns False, and changes nothing, if a process that started later has taken the place.
    """
    columns = {
        "owner": member.owner,
        "address": member.address,
        "port": member.port,
        "seen_at": sa.func.now(),
        **values,
    }
    row = insert(TrainerMachine).values(trainer_group=member.group, node_rank=member.node_rank, **columns)
    keys = [TrainerMachine.trainer_group, TrainerMachine.node_rank]
    own = TrainerMachine.owner == member.owner
    written = row.on_conflict_do_update(index_elements=keys, set_=columns, where=own).returning(TrainerMachine.owner)
    return session.scalar(written) is not None


def leave_place(session: Session, member: Membership) -> None:
    """Record that a follower's process ends. Its row stays, because it tells the leader the cause."""
    own = sa.and_(_is_at(member), TrainerMachine.owner == member.owner)
    session.execute(sa.update(TrainerMachine).where(own).values(seen_at=sa.func.now() - SEEN_WITHIN))


def _is_at(member: Membership) -> sa.ColumnElement[bool]:
    return sa.and_(TrainerMachine.trainer_group == member.group, TrainerMachine.node_rank == member.node_rank)


def machines_of(session: Session, group: str, *, seen_within_s: float | None = None) -> list[TrainerMachine]:
    """Return the machines of a group, in the order of their numbers; with `seen_within_s`, those that are alive."""
    alive = sa.true() if seen_within_s is None else TrainerMachine.seen_at > in_seconds(-seen_within_s)
    rows = sa.select(TrainerMachine).where(TrainerMachine.trainer_group == group, alive)
    return list(session.scalars(rows.order_by(TrainerMachine.node_rank)))


def find_training(session: Session, group: str, owner: str) -> Joined | None:
    """Return the attempt that runs now and counts on this machine."""
    running = (
        sa.select(TrainingRun)
        .where(TrainingRun.state == TaskState.RUNNING, TrainingRun.lease_expires_at > sa.func.now())
        .where(TrainingRun.trainer_group == group, TrainingRun.machines.contains([owner]))
        .order_by(TrainingRun.id)
        .limit(1)
    )
    run = session.scalar(running)
    if run is None or run.rendezvous is None or run.lease_owner is None:
        return None
    return Joined(run.id, run.attempt, run.lease_owner, run.rendezvous, tuple(run.machines))


def is_led() -> sa.ColumnElement[bool]:
    """The condition that the leader of a training's group is alive."""
    alive = TrainerMachine.seen_at > sa.func.now() - SEEN_WITHIN
    return sa.exists().where(
        TrainerMachine.trainer_group == TrainingRun.trainer_group, TrainerMachine.node_rank == 0, alive
    )
