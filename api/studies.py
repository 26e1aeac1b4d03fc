"""Studies: sending them, and what was found on them."""

from collections import Counter
from collections.abc import Mapping
from uuid import UUID

import sqlalchemy as sa
import structlog
from flask import Response, request
from sqlalchemy.orm import Session

from api.audit import note, recorded
from api.auth import identity, requires
from api.body import takes_uploads
from api.idempotency import idempotent
from api.multipart import FIELD, Upload, read_uploads
from api.resource import as_json, resource
from api.schemas import FileOutcome, FileOutcomes, FindingsQuery, StudyPath, SubmitQuery
from api.services import services
from api.study_schemas import Finding, FindingsAnswer, ImageAnswer, ImageFindings, StudyAnswer, StudyErased, spacing_of
from shared.database import is_any
from shared.erasure import erase_study
from shared.errors import NotFound, PermanentError
from shared.imaging.facts import PixelSpacing
from shared.intake import NO_DUPLICATE, Intake, Received
from shared.queue.states import Scope
from shared.tables import Detection, Image, Job, Model, Study

log = structlog.get_logger()

blueprint = resource("studies")

_FILES = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": [FIELD],
                "properties": {
                    FIELD: {
                        "type": "array",
                        "minItems": 1,
                        "items": {"type": "string", "format": "binary"},
                        "description": "DICOM, PNG or JPEG files.",
                    }
                },
            }
        }
    },
}


@blueprint.post("/v1/studies", responses={202: FileOutcomes}, openapi_extensions={"requestBody": _FILES})
@requires(Scope.SUBMIT)
@takes_uploads
@idempotent
def submit(query: SubmitQuery) -> Response:
    """Send images; each file is answered on its own."""
    settings = services().settings
    intake = services().intake(
        identity().project_id, priority=query.priority, model_id=query.model_id, key_id=identity().key_id
    )
    uploads = read_uploads(request, max_bytes=settings.max_upload_bytes, max_files=settings.max_files)
    files: list[FileOutcome] = []
    try:
        files.extend(_receive(intake, upload, number) for number, upload in enumerate(uploads))
    finally:
        intake.send_hints()
        note(files=len(files), study_ids=sorted({str(file.study_id) for file in files if file.study_id}))
        outcomes = Counter(file.code or file.outcome for file in files)
        log.info("files_received", project_id=str(identity().project_id), **outcomes)
    return as_json(FileOutcomes(files=files), 202)


@blueprint.get("/v1/studies/<uuid:study_id>", responses={200: StudyAnswer})
@requires(Scope.READ)
def show(path: StudyPath) -> Response:
    """Show a study, its images and their jobs."""
    with services().database.begin() as session:
        study = _find(session, path.study_id)
        images = session.scalars(sa.select(Image).where(Image.study_id == study.id).order_by(Image.id)).all()
        of_study = sa.select(Job).join(Image, Image.id == Job.image_id).where(Image.study_id == study.id)
        jobs: dict[UUID, list[Job]] = {image.id: [] for image in images}
        for job in session.scalars(of_study.order_by(Job.id)):
            jobs[job.image_id].append(job)
        return as_json(StudyAnswer.of(study, [ImageAnswer.of(image, jobs[image.id]) for image in images]))


@blueprint.get("/v1/studies/<uuid:study_id>/findings", responses={200: FindingsAnswer})
@requires(Scope.READ)
def findings(path: StudyPath, query: FindingsQuery) -> Response:
    """Show what was found on a study's images: of each the latest job."""
    with services().database.begin() as session:
        study = _find(session, path.study_id)
        images = session.scalars(sa.select(Image).where(Image.study_id == study.id).order_by(Image.id)).all()
        jobs = sa.select(Job, Model).outerjoin(Model, Model.id == Job.model_id).join(Image, Image.id == Job.image_id)
        jobs = jobs.where(Image.study_id == study.id, NO_DUPLICATE).order_by(Job.id)
        if query.model_id is not None:
            jobs = jobs.where(sa.or_(Job.model_id == query.model_id, Job.requested_model_id == query.model_id))
        latest: dict[UUID, tuple[Job, Model | None]] = {
            row[0].image_id: (row[0], row[1]) for row in session.execute(jobs)
        }
        spacings = {latest[image.id][0].id: spacing_of(image) for image in images if image.id in latest}
        found = _findings(session, spacings, query.min_score)
        described = []
        for image in images:
            job, model = latest.get(image.id, (None, None))
            described.append(ImageFindings.of(image, job, model, found[job.id] if job else []))
        return as_json(FindingsAnswer(study_id=study.id, images=described))


@blueprint.delete("/v1/studies/<uuid:study_id>", responses={200: StudyErased, 202: StudyErased})
@requires(Scope.ADMIN)
def erase(path: StudyPath) -> Response:
    """Erase a study for good: its rows, originals, renditions, results and reviews; datasets made from it are marked.

    202: objects are left, which are removed as soon as the object store allows; asking again says how many.
    """
    # Bytes that others have too stay, which only all projects' rows tell; the study is one of the key's project.
    erased = erase_study(services().installation, services().store, identity().project_id, path.study_id)
    note(images=erased.images, objects_left=erased.objects_left)
    log.info("study_erased", study_id=str(path.study_id), images=erased.images, objects_left=erased.objects_left)
    answer = StudyErased(study_id=path.study_id, images=erased.images, objects_left=erased.objects_left)
    return as_json(answer, 202 if erased.objects_left else 200)


def _receive(intake: Intake, upload: Upload, number: int) -> FileOutcome:
    # An answer is kept where its request has an Idempotency-Key, and a file may be named after its patient.
    name = upload.name if services().settings.deidentify == "off" else str(number)
    try:
        return FileOutcome.of(name, intake.receive(upload.chunks, also=_note))
    except PermanentError as error:
        return FileOutcome.rejected(name, error)


def _note(session: Session, received: Received) -> None:
    """Have each file recorded in the transaction of its own rows."""
    note(files=1, study_ids=[str(received.study_id)])
    recorded(session)


def _find(session: Session, study_id: UUID) -> Study:
    mine = sa.select(Study).where(Study.id == study_id, Study.project_id == identity().project_id)
    study = session.scalar(mine)
    if study is None:
        raise NotFound
    return study


def _findings(
    session: Session, spacings: Mapping[UUID, PixelSpacing | None], min_score: float
) -> dict[UUID, list[Finding]]:
    """The findings of these jobs, of each the highest score first; `spacings` are those of their images."""
    found: dict[UUID, list[Finding]] = {job_id: [] for job_id in spacings}
    boxes = sa.select(Detection).where(is_any(Detection.job_id, spacings), Detection.score >= min_score)
    for box in session.scalars(boxes.order_by(Detection.job_id, Detection.rank)):
        found[box.job_id].append(Finding.of(box, spacings[box.job_id]))
    return found
