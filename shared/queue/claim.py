"""Claiming jobs: the leases of the workers of a stage. `shared.leases` renews and releases them, and guards changes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared.database import is_any
from shared.leases import Lease, change, expired, is_due, leased_values, lost, waiting_values
from shared.queue.ending import end_jobs
from shared.queue.stages import DETECT, PREPARE, STAGES, Stage
from shared.tables import Image, Job, Model
from shared.vocabulary.states import JobState, ModelState


@dataclass(frozen=True, kw_only=True)
class Claim(Lease):
    """A job that this process holds under a lease."""

    table: ClassVar = Job

    job_id: UUID
    image_id: UUID
    stage: Stage
    #: The digest of this stage's input: of the original for prepare, of the rendition for detect.
    input_sha256: str
    #: Of the original, in pixels.
    height_px: int
    width_px: int
    model_id: UUID | None
    #: Whether the job may have failed a batch before, and so is a batch of its own now.
    alone: bool

    @property
    def key(self) -> tuple[UUID]:
        """The job's id."""
        return (self.job_id,)

    @property
    def waiting_state(self) -> JobState:
        """The state in which the job waits for its stage."""
        return self.stage.waiting


def claim(session: Session, stage: Stage, owner: str, *, limit: int, lease_s: float) -> list[Claim]:
    """Lease up to `limit` waiting jobs, highest priority first, then oldest; for detect all under one model.

    Skips rows that another worker is claiming (`FOR UPDATE SKIP LOCKED`), and so never waits.
    """
    active = sa.select(Model.id).where(Model.state == ModelState.ACTIVE).scalar_subquery()
    model_id = sa.func.coalesce(Job.requested_model_id, active) if stage is DETECT else sa.null()
    waiting = (
        sa.select(Job.id, Job.alone, model_id.label("model_id"))
        .where(is_due(Job, stage.waiting))
        .order_by(Job.priority.desc(), Job.id)
        .limit(limit)
        .with_for_update(skip_locked=True, of=Job)
    )
    if stage is DETECT:
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
        .values(**leased_values(Job, stage.leased, owner, lease_s), model_id=first.model_id)
        .returning(
            Job.id.label("job_id"),
            Job.image_id,
            (Image.sha256 if stage is PREPARE else Image.rendition_sha256).label("input_sha256"),
            Image.height_px,
            Image.width_px,
            Job.model_id,
            Job.lease_owner.label("owner"),
            Job.attempt,
            Job.alone,
        )
        .execution_options(synchronize_session=False)
    )
    claims = [Claim(stage=stage, **row) for row in session.execute(taken).mappings()]
    return sorted(claims, key=lambda claim: claim.job_id)


def expire_leases(session: Session, *, max_attempts: int) -> dict[JobState, int]:
    """Return the jobs of silent workers to their stage, to be tried alone; fail those with no attempts left.

    A job whose worker was lost may have ended that worker, so it is never again put into a batch with others.
    """
    counts = {JobState.FAILED: 0}
    used_up = Job.attempt >= max_attempts
    for stage in STAGES:
        failed = end_jobs(session, expired(Job, stage.leased, used_up), JobState.FAILED, **lost("job"))
        again = waiting_values(stage.waiting) | lost("job") | {"alone": True}
        counts[JobState.FAILED] += len(failed)
        counts[stage.waiting] = len(change(session, Job, expired(Job, stage.leased, ~used_up), **again))
    return counts


def ids(claims: Sequence[Claim]) -> list[str]:
    """The jobs' ids, for a log line."""
    return [str(claim.job_id) for claim in claims]
