"""Reads the data of the viewer's page: a study's images, their results with reviews, and the neighbouring studies."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import sqlalchemy as sa
from pydantic import BaseModel
from sqlalchemy.orm import Session

from api.contract.jobs import JobAnswer
from api.contract.models import ModelReference
from api.contract.reviews import ReviewAnswer
from api.contract.studies import ImageAnswer
from api.contract.study_list import StudiesQuery
from api.http.rows import find_row
from api.reviews.answers import describe_review
from api.studies.answers import describe_image, describe_job, refer_to
from api.studies.search import find_neighbours
from api.studies.summaries import MAX_IMAGES
from shared.access.keys import Identity
from shared.database import is_any
from shared.detector.card import Category
from shared.imaging.overlay import assign_colours
from shared.models import registry
from shared.reviews.threads import ReviewThread, read_threads
from shared.studies.results import NO_DUPLICATE, select_results, standing
from shared.tables import Image, Job, Model, Study


class Result(BaseModel):
    """A succeeded job: the model, and its time."""

    job_id: UUID
    model: ModelReference
    #: All classes of the model.
    classes: list[Category]
    finished_at: datetime | None
    #: The model's probability that the image shows any finding; None if it has no abnormality head.
    abnormality: float | None


class ViewedImage(ImageAnswer):
    """An image with the job that determines its state, the results of all models, and the review to show first."""

    has_rendition: bool
    standing_job: JobAnswer | None
    #: The result of the active model first, if there is one.
    results: list[Result]
    review: ReviewAnswer | None
    #: By class name, as in `/v1/images/ID/overlay.png`.
    colours: dict[str, str]


class ViewedStudy(BaseModel):
    """A study, and its neighbours in the worklist from which it was opened."""

    id: UUID
    study_instance_uid: str | None
    created_at: datetime
    newer: UUID | None
    older: UUID | None
    image_count: int
    #: The model whose results are authoritative; None if no model is active.
    active_model: ModelReference | None
    #: In order of time; at most the newest `MAX_IMAGES`.
    images: list[ViewedImage]


def read_study(session: Session, study_id: UUID, reader: Identity, worklist: StudiesQuery) -> ViewedStudy:
    """Read the data of the page. Raises `NotFound` if the study does not belong to the reader's project."""
    study = find_row(session, Study, study_id)
    active = registry.active(session)
    beside = find_neighbours(session, reader.project_id, worklist, study.id)
    of_study = Image.study_id == study.id
    newest = sa.select(Image).where(of_study).order_by(Image.id.desc()).limit(MAX_IMAGES)
    images = session.scalars(newest).all()[::-1]
    return ViewedStudy(
        id=study.id,
        study_instance_uid=study.study_instance_uid,
        created_at=study.created_at,
        newer=beside.newer,
        older=beside.older,
        image_count=session.scalar(sa.select(sa.func.count()).where(of_study)) or 0,
        active_model=refer_to(active) if active else None,
        images=_read_images(session, images, reader),
    )


def _read_images(session: Session, images: Sequence[Image], reader: Identity) -> list[ViewedImage]:
    image_ids = [image.id for image in images]
    of_images = is_any(Job.image_id, image_ids)
    jobs: dict[UUID, list[Job]] = {image_id: [] for image_id in image_ids}
    for job in session.scalars(sa.select(Job).where(of_images, NO_DUPLICATE).order_by(Job.id)):
        jobs[job.image_id].append(job)
    in_order = sa.select(Job).where(of_images, NO_DUPLICATE).order_by(*standing())
    standings = {job.image_id: job for job in session.scalars(in_order)}
    results: dict[UUID, list[Result]] = {image_id: [] for image_id in image_ids}
    for job, model in session.execute(select_results(of_images)):
        results[job.image_id].append(_result(job, model))
    threads = read_threads(session, image_ids)
    return [
        _describe(image, jobs[image.id], standings.get(image.id), results[image.id], threads.get(image.id), reader)
        for image in images
    ]


def _describe(
    image: Image,
    jobs: list[Job],
    standing_job: Job | None,
    results: list[Result],
    thread: ReviewThread | None,
    reader: Identity,
) -> ViewedImage:
    found = {finding.class_name for finding in thread.detected()} if thread else ()
    names = (category.name for result in results for category in result.classes)
    return ViewedImage(
        **describe_image(image, jobs).model_dump(),
        has_rendition=image.rendition_sha256 is not None,
        standing_job=describe_job(standing_job, image) if standing_job else None,
        results=results,
        review=describe_review(thread, reader.key_id) if thread else None,
        # Classes with findings have the overlay's colours, independent of the models' other classes.
        colours=assign_colours(names) | assign_colours(found),
    )


def _result(job: Job, model: Model) -> Result:
    classes = [Category.model_validate(category) for category in model.card["categories"]]
    of_job = {"job_id": job.id, "finished_at": job.finished_at, "abnormality": job.abnormality}
    return Result(model=refer_to(model), classes=classes, **of_job)
