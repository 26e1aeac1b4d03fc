"""Reruns of a study: jobs of the active model for images without its result, for example after a promotion."""

from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared.errors import NoActiveModel, Place, RequestError
from shared.intake.receive import add_job
from shared.models import registry
from shared.studies.results import is_of_active_model, standing
from shared.tables import Image, Job
from shared.vocabulary.states import JobState


class NothingToRunWith(NoActiveModel, RequestError, shares_code=True):
    """No model is active, so the study cannot be processed again. Promote a model first."""

    status = 409
    places = Place.REQUEST


def ask_active_model(session: Session, study_id: UUID, priority: int) -> tuple[list[tuple[Job, Image]], list[Job]]:
    """Return the active model's job for each image of a study, and the list of new jobs.

    An image whose job failed or was cancelled gets a new job. A rejected job is kept, because its image is unfit.
    Raises `NothingToRunWith`.
    """
    active = registry.active(session)
    if active is None:
        raise NothingToRunWith
    # The lock lets only one of two concurrent requests create the jobs; workers can still refer to the images.
    images = sa.select(Image).where(Image.study_id == study_id).order_by(Image.id).with_for_update(key_share=True)
    jobs: list[tuple[Job, Image]] = []
    new: list[Job] = []
    for image in session.scalars(images).all():
        job = _find_job(session, image)
        if job is None:
            columns = {"project_id": image.project_id, "study_id": study_id, "image_id": image.id}
            job = add_job(session, image, Job(**columns, requested_model_id=active.id, priority=priority))
            session.refresh(job)
            new.append(job)
        jobs.append((job, image))
    return jobs, new


def _find_job(session: Session, image: Image) -> Job | None:
    """Return the active model's job of an image, unless it failed or was cancelled."""
    jobs = sa.select(Job).where(Job.image_id == image.id, is_of_active_model())
    jobs = jobs.where(Job.state.not_in([JobState.FAILED, JobState.CANCELLED]))
    return session.scalar(jobs.order_by(*(column.desc() for column in standing())).limit(1))
