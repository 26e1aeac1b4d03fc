"""What the viewer's page is made from: a study's images, their results as readers left them, and its neighbours."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import sqlalchemy as sa
from pydantic import BaseModel
from sqlalchemy.orm import Session

from api.review_schemas import ReviewAnswer
from api.schemas import JobAnswer
from api.study_list_schemas import StudiesQuery
from api.study_schemas import ImageAnswer, ModelReference
from api.study_search import find_neighbours
from shared.detector.card import Category
from shared.errors import NotFound, NotReady
from shared.imaging.overlay import assign_colours
from shared.intake import NO_DUPLICATE
from shared.keys import Identity
from shared.queue.states import JobState
from shared.reviews.rows import open_thread
from shared.tables import Image, Job, Model, Study


class Result(BaseModel):
    """A job that has succeeded: what a model found, and when."""

    job_id: UUID
    model: ModelReference
    #: What the model can find.
    classes: list[Category]
    finished_at: datetime | None


class ViewedImage(ImageAnswer):
    """An image with its latest job, what each model found on it, and the review that is shown first."""

    has_rendition: bool
    latest_job: JobAnswer | None
    #: The newest first.
    results: list[Result]
    review: ReviewAnswer | None
    #: By the class' name, as `/v1/images/ID/overlay.png` has them.
    colours: dict[str, str]


class ViewedStudy(BaseModel):
    """A study, and its neighbours in the worklist from which it was opened."""

    id: UUID
    study_instance_uid: str | None
    created_at: datetime
    newer: UUID | None
    older: UUID | None
    images: list[ViewedImage]


def read_study(session: Session, study_id: UUID, reader: Identity, worklist: StudiesQuery) -> ViewedStudy:
    """Read what the page shows; raises `NotFound` for a study that is not the reader's project's."""
    mine = sa.select(Study).where(Study.id == study_id, Study.project_id == reader.project_id)
    study = session.scalar(mine)
    if study is None:
        raise NotFound("There is no such study.")
    beside = find_neighbours(session, reader.project_id, worklist, study.id)
    images = session.scalars(sa.select(Image).where(Image.study_id == study.id).order_by(Image.id)).all()
    return ViewedStudy(
        id=study.id,
        study_instance_uid=study.study_instance_uid,
        created_at=study.created_at,
        newer=beside.newer,
        older=beside.older,
        images=[_read_image(session, image, reader) for image in images],
    )


def _read_image(session: Session, image: Image, reader: Identity) -> ViewedImage:
    jobs = session.scalars(sa.select(Job).where(Job.image_id == image.id, NO_DUPLICATE).order_by(Job.id)).all()
    try:
        thread = open_thread(session, reader.project_id, image.id, None, to_add=False)
    except NotReady:
        thread = None
    results = _results(session, jobs)
    found = {finding.class_name for finding in thread.detected()} if thread else ()
    names = (category.name for result in results for category in result.classes)
    return ViewedImage(
        **ImageAnswer.of(image, list(jobs)).model_dump(),
        has_rendition=image.rendition_sha256 is not None,
        latest_job=JobAnswer.of(jobs[-1], image) if jobs else None,
        results=results,
        review=ReviewAnswer.of(thread, reader.key_id) if thread else None,
        # Those of what was found are the overlay's, whatever else the models can find.
        colours=assign_colours(names) | assign_colours(found),
    )


def _results(session: Session, jobs: Sequence[Job]) -> list[Result]:
    succeeded = [job for job in reversed(jobs) if job.state == JobState.SUCCEEDED]
    known = sa.select(Model).where(Model.id.in_({job.model_id for job in succeeded}))
    models = {model.id: model for model in session.scalars(known)}
    return [_result(job, models[job.model_id]) for job in succeeded if job.model_id is not None]


def _result(job: Job, model: Model) -> Result:
    classes = [Category.model_validate(category) for category in model.card["categories"]]
    return Result(job_id=job.id, model=ModelReference.of(model), classes=classes, finished_at=job.finished_at)
