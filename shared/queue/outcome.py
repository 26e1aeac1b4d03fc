"""The outcome of a stage for a leased job: handed on, rejected, tried again, or failed. Every change is fenced."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, aliased

from shared.errors import CarinaError, PermanentError, Place, plain_code
from shared.imaging.facts import ImageFacts
from shared.leases import change_held, ends_as, held, is_outage, reason_of, try_again, waiting_values
from shared.queue.claim import Claim
from shared.queue.ending import end_jobs
from shared.queue.shared_jobs import IS_OPEN
from shared.queue.top_scores import keep_top_scores
from shared.tables import Detection, Image, Job
from shared.version import code_version
from shared.vocabulary.states import JobState

#: The code of a job that was cancelled because another one of its image has the result.
DUPLICATE = plain_code(
    "duplicate", "The job was cancelled because another job of the same image has the result.", Place.JOB, is_final=True
)
_NO_REASON = {"code": None, "reason": None}


@dataclass(frozen=True)
class StoredRendition:
    """The rendition of an image, as the image's row describes it."""

    sha256: str
    version: int
    height_px: int
    width_px: int
    original_height_px: int
    original_width_px: int
    byte_count: int | None = None
    facts: ImageFacts = field(default_factory=ImageFacts)


@dataclass(frozen=True)
class FoundBox:
    """One detection, box in the pixel coordinates of the original image."""

    class_id: int
    class_name: str
    score: float
    box_xyxy_px: tuple[float, float, float, float]


@dataclass(frozen=True)
class FoundImage:
    """What a model found in one image."""

    boxes: Sequence[FoundBox] = ()
    #: The probability that the image shows any finding; None if the model has no abnormality head.
    abnormality: float | None = None


def mark_ready(session: Session, claim: Claim, rendition: StoredRendition) -> bool:
    """Hand a prepared job on to detect. Return whether it was still ours."""
    ready = waiting_values(claim.stage.done) | _NO_REASON | {"attempt": 0, "alone": False, "ready_at": sa.func.now()}
    if not change_held(session, [claim], **ready):
        return False
    _store(session, claim, rendition)
    return True


def refuse(session: Session, claim: Claim, rendition: StoredRendition, error: PermanentError) -> bool:
    """Reject a prepared job, and keep the rendition, which shows why. Return whether it was still ours."""
    if not end_jobs(session, held([claim]), JobState.REJECTED, **reason_of(error)):
        return False
    _store(session, claim, rendition)
    return True


def _store(session: Session, claim: Claim, rendition: StoredRendition) -> None:
    session.execute(
        sa.update(Image)
        .where(Image.id == claim.image_id)
        .values(
            rendition_sha256=rendition.sha256,
            rendition_version=rendition.version,
            rendition_height_px=rendition.height_px,
            rendition_width_px=rendition.width_px,
            rendition_byte_count=rendition.byte_count,
            height_px=rendition.original_height_px,
            width_px=rendition.original_width_px,
            **_columns(rendition.facts),
        )
    )


def _columns(facts: ImageFacts) -> dict[str, object]:
    """The facts as columns of `Image`."""
    spacing = facts.spacing
    return {
        "row_spacing_mm": spacing.row_mm if spacing else None,
        "column_spacing_mm": spacing.column_mm if spacing else None,
        "spacing_source": spacing.source if spacing else None,
        "grey_levels": facts.grey_levels,
        "flags": facts.flags,
        "chest_scores": facts.chest_scores.model_dump() if facts.chest_scores else None,
    }


def succeed(session: Session, found: Mapping[Claim, FoundImage]) -> set[UUID]:
    """Commit a batch's detections; return the jobs that were still ours. The rest is dropped.

    An image has one result under a model: a job that comes second is cancelled as a `DUPLICATE` of the first.
    """
    firsts: dict[tuple[UUID, UUID | None], Claim] = {}
    for claim in found:
        firsts.setdefault((claim.image_id, claim.model_id), claim)
    ours: set[UUID] = set()
    for claims in (firsts.values(), found.keys() - firsts.values()):
        ours |= _end_as_succeeded(session, {claim: found[claim] for claim in claims}) if claims else set()
    rows = [
        {
            "job_id": claim.job_id,
            "rank": rank,
            "model_id": claim.model_id,
            "class_id": box.class_id,
            "class_name": box.class_name,
            "score": box.score,
            **dict(zip(("x_min_px", "y_min_px", "x_max_px", "y_max_px"), box.box_xyxy_px, strict=True)),
        }
        for claim, image in found.items()
        if claim.job_id in ours
        for rank, box in enumerate(sorted(image.boxes, key=lambda box: -box.score))
    ]
    if rows:
        # An array for each column: a statement for each row costs PostgreSQL and us twice as much.
        columns = Detection.__table__.columns
        arrays = [sa.literal([row[column.name] for row in rows], ARRAY(column.type)) for column in columns]
        unnested = sa.select(*(sa.func.unnest(array) for array in arrays))
        session.execute(sa.insert(Detection).from_select(columns.keys(), unnested))
    keep_top_scores(
        session, {claim.job_id: _best(image.boxes) for claim, image in found.items() if claim.job_id in ours}
    )
    return ours


def _best(boxes: Sequence[FoundBox]) -> dict[str, float]:
    """The highest score of each class."""
    return {box.class_name: box.score for box in sorted(boxes, key=lambda box: box.score)}


def _end_as_succeeded(session: Session, claims: Mapping[Claim, FoundImage]) -> set[UUID]:
    probabilities = {claim.job_id: image.abnormality for claim, image in claims.items()}
    while True:
        try:
            with session.begin_nested():
                values: dict[str, Any] = _NO_REASON | {"code_version": code_version()}
                if any(probability is not None for probability in probabilities.values()):
                    values["abnormality"] = sa.case(probabilities, value=Job.id)
                return set(end_jobs(session, held(claims), JobState.SUCCEEDED, **values))
        except IntegrityError:
            first = aliased(Job)
            has_result = (first.image_id == Job.image_id, first.model_id == Job.model_id)
            second = sa.exists().where(*has_result, first.state == JobState.SUCCEEDED)
            why = {"code": DUPLICATE, "reason": "Another job of this image has the result under this model."}
            if not end_jobs(session, sa.and_(held(claims), second), JobState.CANCELLED, **why):
                raise


def give_up_or_retry(
    session: Session, claim: Claim, error: CarinaError, *, max_attempts: int, backoff_s: float, alone: bool = False
) -> JobState | None:
    """End a job after an error, or have it tried again; return its new state, or None if it was no longer ours.

    `shared.leases.ends_as` decides. `alone` is for a job that may have failed its batch.
    """
    if final := ends_as(error, claim.attempt, max_attempts=max_attempts):
        state = JobState(final)
        return state if end_jobs(session, held([claim]), state, **reason_of(error)) else None
    alone = claim.alone or (alone and not is_outage(error))
    return claim.stage.waiting if try_again(session, claim, error, backoff_s=backoff_s, alone=alone) else None


def cancel(session: Session, project_id: UUID, job_id: UUID) -> bool:
    """Cancel a job that is not final yet; return whether it was changed. A worker that holds it cannot commit."""
    open_job = sa.and_(Job.id == job_id, Job.project_id == project_id, IS_OPEN)
    return bool(end_jobs(session, open_job, JobState.CANCELLED))
