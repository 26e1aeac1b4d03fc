"""Taking jobs, keeping them, and giving them back: the lease.

Every change is one UPDATE under the fence `(lease_owner, attempt)` with a lease that has not run out. Zero rows updated
means that the job is somebody else's by now.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Session

from shared.database import is_any
from shared.errors import Place, plain_code
from shared.notifications.webhooks import announce_jobs
from shared.tables import Image, Job, Model
from shared.vocabulary.states import JobState, ModelState, Stage

LOST_WORKER = plain_code(
    "worker_lost",
    "The worker of the job or file died or hung, in every attempt.",
    Place.JOB | Place.FILE,
)


@dataclass(frozen=True)
class Claim:
    """A job that this process holds under a lease."""

    job_id: UUID
    image_id: UUID
    #: Where the bytes of this stage's input lie: the original for prepare, the rendition for detect.
    input_sha256: str
    #: Of the original, in pixels.
    height_px: int
    width_px: int
    model_id: UUID | None
    owner: str
    attempt: int
    #: Whether it may have brought down a batch before, and so is a batch of its own now.
    alone: bool


def claim(session: Session, stage: Stage, owner: str, *, limit: int, lease_s: float) -> list[Claim]:
    """Lease up to `limit` waiting jobs, highest priority first, then oldest; for detect all under one model.

    Skips rows that another worker is claiming (`FOR UPDATE SKIP LOCKED`), and so never waits.
    """
    active = sa.select(Model.id).where(Model.state == ModelState.ACTIVE).scalar_subquery()
    model_id = sa.func.coalesce(Job.requested_model_id, active) if stage is Stage.DETECT else sa.null()
    waiting = (
        sa.select(Job.id, Job.alone, model_id.label("model_id"))
        .where(Job.state == stage.waiting, Job.available_at <= sa.func.now())
        .order_by(Job.priority.desc(), Job.id)
        .limit(limit)
        .with_for_update(skip_locked=True, of=Job)
    )
    if stage is Stage.DETECT:
        waiting = waiting.where(model_id.is_not(None))
    rows = session.execute(waiting).all()
    if not rows:
        return []

    first = rows[0]
    batch = [row for row in rows if not row.alone and row.model_id == first.model_id]
    chosen = [first.id] if first.alone else [row.id for row in batch]
    taken = (
        sa.update(Job)
        .where(is_any(Job.id, chosen), Image.id == Job.image_id)
        .values(
            state=stage.leased,
            lease_owner=owner,
            lease_expires_at=in_seconds(lease_s),
            attempt=Job.attempt + 1,
            model_id=first.model_id,
        )
        .returning(
            Job.id.label("job_id"),
            Job.image_id,
            (Image.sha256 if stage is Stage.PREPARE else Image.rendition_sha256).label("input_sha256"),
            Image.height_px,
            Image.width_px,
            Job.model_id,
            Job.lease_owner.label("owner"),
            Job.attempt,
            Job.alone,
        )
        .execution_options(synchronize_session=False)
    )
    claims = [Claim(**row) for row in session.execute(taken).mappings()]
    return sorted(claims, key=lambda claim: claim.job_id)


def renew(session: Session, claims: Collection[Claim], *, lease_s: float) -> int:
    """Move the end of these leases to `lease_s` from now; return how many are still ours."""
    return _update(session, claims, lease_expires_at=in_seconds(lease_s))


def release(session: Session, stage: Stage, claims: Collection[Claim], *, pause_s: float = 0) -> int:
    """Hand jobs back as if they had not been claimed: this worker stops, or a server that they need is down."""
    back = waiting_values(stage, pause_s) | {"attempt": Job.attempt - 1}
    return _update(session, claims, **back)


def expire_leases(session: Session, *, max_attempts: int) -> dict[JobState, int]:
    """Return the jobs of silent workers to their stage, to be tried alone; fail those with no attempts left.

    A job whose worker was lost may be what killed it, so it is never again put into a batch with others.
    """
    outcome: dict[JobState, int] = {}
    for stage in (Stage.PREPARE, Stage.DETECT):
        expired = (Job.state == stage.leased, Job.lease_expires_at <= sa.func.now())
        used_up = Job.attempt >= max_attempts
        lost = {"code": LOST_WORKER, "reason": "The worker that had the job fell silent."}
        for state, which, values in (
            (JobState.FAILED, used_up, final_values(JobState.FAILED) | lost),
            (stage.waiting, ~used_up, waiting_values(stage, 0) | lost | {"alone": True}),
        ):
            skipping = sa.select(Job.id).where(*expired, which).with_for_update(skip_locked=True)
            change = sa.update(Job).where(Job.id.in_(skipping)).values(**values).returning(Job.id)
            changed = session.scalars(change.execution_options(synchronize_session=False)).all()
            if state.is_final:
                announce_jobs(session, changed)
            outcome[state] = outcome.get(state, 0) + len(changed)
    return outcome


def fenced(claims: Collection[Claim]) -> sa.ColumnElement[bool]:
    """The condition under which these claims are still ours."""
    # Arrays, because a list of parameters makes another statement for each length, to be parsed and planned again.
    job_ids = _array([claim.job_id for claim in claims], sa.Uuid())
    attempts = _array([claim.attempt for claim in claims], sa.Integer())
    held = sa.select(sa.func.unnest(job_ids), sa.func.unnest(attempts))
    # The second condition implies the first, which the primary key can answer. None names the state, which follows from
    # the owner: PostgreSQL would take the index of leases instead, and read every lease that there is.
    return sa.and_(
        Job.id == sa.any_(job_ids),
        sa.tuple_(Job.id, Job.attempt).in_(held),
        is_any(Job.lease_owner, sorted({claim.owner for claim in claims})),
        Job.lease_expires_at > sa.func.now(),
    )


def final_values(state: JobState) -> dict[str, object]:
    """The columns of a job that has come to its end."""
    return {"state": state, "lease_owner": None, "lease_expires_at": None, "finished_at": sa.func.now()}


def waiting_values(stage: Stage, pause_s: float) -> dict[str, object]:
    """The columns of a job that waits for a stage, to be claimed in `pause_s` at the earliest."""
    return {
        "state": stage.waiting,
        "lease_owner": None,
        "lease_expires_at": None,
        "available_at": in_seconds(pause_s),
    }


def _array(values: Sequence[object], of: sa.types.TypeEngine[Any]) -> sa.BindParameter[Any]:
    return sa.literal(values, ARRAY(of))


def _update(session: Session, claims: Collection[Claim], **values: object) -> int:
    if not claims:
        return 0
    change = sa.update(Job).where(fenced(claims)).values(**values).returning(Job.id)
    return len(session.execute(change.execution_options(synchronize_session=False)).all())


def in_seconds(seconds: float) -> sa.ColumnElement[datetime]:
    """The database's clock, `seconds` from now."""
    return sa.func.now() + sa.func.make_interval(0, 0, 0, 0, 0, 0, seconds)


def ids(claims: Sequence[Claim]) -> list[str]:
    """The jobs' ids, for a log line."""
    return [str(claim.job_id) for claim in claims]
