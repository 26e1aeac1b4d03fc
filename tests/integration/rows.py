"""Rows with nothing behind them, for what only looks at rows."""

import hashlib
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared.access.keys import FIRST_PROJECT, open_project
from shared.database import Database
from shared.ids import new_id
from shared.tables import Dataset, Detection, Image, Job, Model, Project, Study
from shared.vocabulary.states import JobState, ModelState, TaskState
from tests.tiny_model import CATEGORIES


def home(session: Session) -> UUID:
    """The project of this test's keys, else the one of the command line."""
    ward = session.scalar(sa.select(Project.id).where(Project.name == "ward"))
    return ward or open_project(session, FIRST_PROJECT)


def home_of(database: Database) -> UUID:
    """The same of a database."""
    with database.begin() as session:
        return home(session)


def add_dataset(
    session: Session, name: str = "films", *, content: str = "first", state: TaskState = TaskState.SUCCEEDED
) -> Dataset:
    """Add a dataset whose digest follows from its content."""
    digest = hashlib.sha256(content.encode()).hexdigest() if state is TaskState.SUCCEEDED else None
    session.add(dataset := Dataset(project_id=home(session), name=name, source={}, digest=digest, state=state))
    session.flush()
    return dataset


def add_model(session: Session, name: str = "lungs", state: ModelState = ModelState.CANDIDATE) -> Model:
    """Add a model that nobody can load."""
    digest = hashlib.sha256(name.encode()).hexdigest()
    session.add(model := Model(name=name, digest=digest, card={"categories": []}, weights_sha256="0" * 64, state=state))
    session.flush()
    return model


def add_image(
    session: Session, project_id: UUID, *, height_px: int = 96, width_px: int = 80, **columns: object
) -> Image:
    """Add an image in a study of its own, not prepared unless the columns say so."""
    session.add(study := Study(project_id=project_id))
    session.flush()
    unique = hashlib.sha256(new_id().bytes).hexdigest()
    known = {"sha256": unique, "byte_count": 1, "media_type": "application/dicom"} | columns
    image = Image(project_id=project_id, study_id=study.id, height_px=height_px, width_px=width_px, **known)
    session.add(image)
    session.flush()
    return image


def add_job(session: Session, image: Image, **columns: object) -> Job:
    """Add a job of an image."""
    job = Job(project_id=image.project_id, study_id=image.study_id, image_id=image.id, **columns)
    session.add(job)
    session.flush()
    return job


def add_result(session: Session, image: Image, model_name: str) -> Job:
    """Add a job that has found three boxes, under a model that can find the tiny one's classes."""
    model = add_model(session, model_name)
    model.card = {"categories": [category.model_dump() for category in CATEGORIES]}
    job = add_job(session, image, model_id=model.id, state=JobState.SUCCEEDED)
    for rank, score in enumerate((0.9, 0.5, 0.1)):
        place = {"x_min_px": 5.0, "y_min_px": 6.0, "x_max_px": 25.0 + rank, "y_max_px": 36.0}
        found = {"class_id": 30, "class_name": "Mass", "score": score}
        session.add(Detection(job_id=job.id, rank=rank, model_id=model.id, **found, **place))
    session.flush()
    return job
