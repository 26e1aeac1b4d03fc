"""The findings of a study's images: those of the active model, and those of other models."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Session

from api.contract.findings import Finding, FindingsAnswer, FindingsQuery, ImageFindings
from api.studies.answers import describe_finding, describe_findings, describe_other_result, refer_to, spacing_of
from shared.database import is_any
from shared.imaging.facts import PixelSpacing
from shared.models import registry
from shared.studies.results import NO_DUPLICATE, is_of_active_model, select_results, standing
from shared.tables import Detection, Image, Job, Model
from shared.vocabulary.states import JobState


@dataclass
class _OfImage:
    """An image with its jobs and results."""

    image: Image
    #: The job of the requested model; by default the active one.
    job: Job | None = None
    model: Model | None = None
    #: The results of other models, in their order.
    others: list[tuple[Job, Model]] = field(default_factory=list)


def read_findings(
    session: Session, studies: Mapping[UUID, Sequence[Image]], query: FindingsQuery
) -> list[FindingsAnswer]:
    """Return the findings of these images for each study, in their order."""
    found = {image.id: _OfImage(image) for images in studies.values() for image in images}
    jobs = sa.select(Job, Model).outerjoin(Model, Model.id == Job.model_id)
    jobs = jobs.where(is_any(Job.image_id, found), NO_DUPLICATE)
    if query.model_id is None:
        jobs = jobs.where(is_of_active_model()).order_by(*standing())
    else:
        registry.require(session, query.model_id, parameter="model_id")
        jobs = jobs.where(sa.or_(Job.model_id == query.model_id, Job.requested_model_id == query.model_id))
        jobs = jobs.order_by(Job.state == JobState.SUCCEEDED, Job.id)
    for job, model in session.execute(jobs):
        found[job.image_id].job, found[job.image_id].model = job, model
    for job, model in session.execute(select_results(is_any(Job.image_id, found))):
        if job is not found[job.image_id].job:
            found[job.image_id].others.append((job, model))

    spacings = {
        job.id: spacing_of(each.image)
        for each in found.values()
        for job in (each.job, *(job for job, _ in each.others))
        if job is not None
    }
    boxes = _read_boxes(session, spacings, query.min_score)
    active = registry.active(session)
    active_model = refer_to(active) if active else None
    return [
        FindingsAnswer(
            study_id=study_id,
            active_model=active_model,
            images=[_describe(found[image.id], boxes) for image in images],
        )
        for study_id, images in studies.items()
    ]


def _describe(of_image: _OfImage, boxes: Mapping[UUID, list[Finding]]) -> ImageFindings:
    job = of_image.job
    return describe_findings(
        of_image.image,
        job,
        of_image.model,
        boxes[job.id] if job else [],
        [describe_other_result(other, model, boxes[other.id]) for other, model in of_image.others],
    )


def _read_boxes(
    session: Session, spacings: Mapping[UUID, PixelSpacing | None], min_score: float
) -> dict[UUID, list[Finding]]:
    """Return the findings by job, in order of falling score; `spacings` are those of the jobs' images."""
    found: dict[UUID, list[Finding]] = {job_id: [] for job_id in spacings}
    boxes = sa.select(Detection).where(is_any(Detection.job_id, spacings), Detection.score >= min_score)
    for box in session.scalars(boxes.order_by(Detection.job_id, Detection.rank)):
        found[box.job_id].append(describe_finding(box, spacings[box.job_id]))
    return found
