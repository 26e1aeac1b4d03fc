"""Accepts, shows, reruns and erases studies; shows their findings."""

from collections import Counter
from contextlib import suppress
from uuid import UUID

import sqlalchemy as sa
import structlog
from flask import Response, request
from sqlalchemy.orm import Session

from api.contract.files import FileOutcome, FileOutcomes, SubmitQuery
from api.contract.findings import FindingsAnswer, FindingsExportQuery
from api.contract.jobs import JobsAnswer
from api.contract.studies import (
    ModelLearnt,
    PatientErased,
    PatientRequest,
    RerunQuery,
    StudyAnswer,
    StudyErased,
    StudyPath,
)
from api.http.audit import note, recorded
from api.http.auth import identity, requires
from api.http.body import takes_uploads
from api.http.errors import STORE_ERRORS, may_raise
from api.http.idempotency import idempotent
from api.http.multipart import FIELD, Upload, read_uploads
from api.http.resource import as_json, resource
from api.http.rows import find_row
from api.http.services import services
from api.studies.answers import describe_file, describe_image, describe_job, describe_study
from api.studies.exports import export_study
from api.studies.findings_formats import ModelsDiffer
from shared.erasure import erase_study
from shared.erasure.patients import PatientsUnread, find_studies
from shared.errors import MalformedUpload, NoFiles, NotFound, PermanentError, UnexpectedFile
from shared.intake.receive import Intake, Received
from shared.studies.reruns import NothingToRunWith, ask_active_model
from shared.tables import Image, Job, Model, Study
from shared.vocabulary.states import ModelState, Scope

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
@may_raise(NoFiles, UnexpectedFile, MalformedUpload, NotFound)
def submit(query: SubmitQuery) -> Response:
    """Send images.

    Send one or more files in the multipart field `files`. Each file is answered on its own: `accepted` with the ids of
    its study, image and job; `duplicate` if the project has the same bytes already; or `rejected` with a code and a
    reason. Accepted files stay accepted even if the connection breaks at a later file. To send many files, make a
    submission.
    """
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
    """Show a study with its images and their jobs.

    Images and jobs are sorted from the oldest to the newest.
    """
    with services().database.begin() as session:
        study = find_row(session, Study, path.study_id)
        images = session.scalars(sa.select(Image).where(Image.study_id == study.id).order_by(Image.id)).all()
        of_study = sa.select(Job).join(Image, Image.id == Job.image_id).where(Image.study_id == study.id)
        jobs: dict[UUID, list[Job]] = {image.id: [] for image in images}
        for job in session.scalars(of_study.order_by(Job.id)):
            jobs[job.image_id].append(job)
        return as_json(describe_study(study, [describe_image(image, jobs[image.id]) for image in images]))


@blueprint.get("/v1/studies/<uuid:study_id>/findings", responses={200: FindingsAnswer})
@requires(Scope.READ)
@may_raise(ModelsDiffer)
def findings(path: StudyPath, query: FindingsExportQuery) -> Response:
    """Show the findings on a study's images.

    `findings` are those of the active model, or of `model_id`. They are empty until the image's job has succeeded.
    `other_results` has the findings of other models. Boxes are in pixels of the original image.
    """
    with services().database.begin() as session:
        find_row(session, Study, path.study_id)
    return export_study(path.study_id, query)


@blueprint.post("/v1/studies/<uuid:study_id>/jobs", responses={202: JobsAnswer})
@requires(Scope.SUBMIT)
@idempotent
@may_raise(NothingToRunWith)
def rerun(path: StudyPath, query: RerunQuery) -> Response:
    """Process a study again with the active model.

    Makes a job for each image that has no result of the active model, for example after a promotion, and returns the
    active model's job of each image. Sent again, it returns the same jobs.
    """
    with services().database.begin() as session:
        study = find_row(session, Study, path.study_id)
        jobs, new = ask_active_model(session, study.id, query.priority)
        note(jobs=len(new))
        states = [job.state for job in new]
        answer = JobsAnswer(jobs=[describe_job(job, image) for job, image in jobs])
    services().hints.send_for(states)
    return as_json(answer, 202)


@blueprint.delete("/v1/studies/<uuid:study_id>", responses={200: StudyErased, 202: StudyErased})
@requires(Scope.ADMIN)
@may_raise(*STORE_ERRORS)
def erase(path: StudyPath) -> Response:
    """Erase a study.

    Erases the study's rows, originals, renditions, results and reviews permanently; datasets made from it are marked.
    Status 202 means that some objects are not removed yet; they are removed as soon as the object store allows it.
    """
    answer = _erase(path.study_id)
    note(images=answer.images, objects_left=answer.objects_left, learnt=[str(model.id) for model in answer.learnt])
    return as_json(answer, 202 if answer.objects_left else 200)


@blueprint.post("/v1/patients/erase", responses={200: PatientErased, 202: PatientErased})
@requires(Scope.ADMIN)
@may_raise(PatientsUnread, *STORE_ERRORS)
def erase_patient(body: PatientRequest) -> Response:
    """Erase a patient's studies.

    Erases every study of this project with an image whose file has this PatientID, as the deletion of a study does. The
    PatientID is neither stored nor logged. Images without a PatientID, such as PNG files, belong to no patient: erase
    their studies. Sent again, it erases what has arrived since.
    """
    with services().database.begin() as session:
        study_ids = find_studies(session, identity().project_id, body.patient_id)
    erased = []
    for study_id in study_ids:
        with suppress(NotFound):  # another request has just erased it
            erased.append(_erase(study_id))
    learnt = sorted({str(model.id) for study in erased for model in study.learnt})
    note(study_ids=[str(study_id) for study_id in study_ids], learnt=learnt)
    return as_json(PatientErased(studies=erased), 202 if any(study.objects_left for study in erased) else 200)


def _erase(study_id: UUID) -> StudyErased:
    # Objects that other projects use are kept, so the rows of all projects are needed. The study is the project's own.
    note(study_id=str(study_id))
    erased = erase_study(services().installation, services().store, identity().project_id, study_id)
    log.info("study_erased", study_id=str(study_id), images=erased.images, objects_left=erased.objects_left)
    with services().database.begin() as session:
        models = session.scalars(sa.select(Model).where(Model.id.in_(erased.learners)).order_by(Model.id)).all()
        learnt = [ModelLearnt(id=model.id, name=model.name, state=ModelState(model.state)) for model in models]
    return StudyErased(study_id=study_id, images=erased.images, objects_left=erased.objects_left, learnt=learnt)


def _receive(intake: Intake, upload: Upload, number: int) -> FileOutcome:
    # The answer can be stored for its Idempotency-Key, and a file name can contain the patient's name.
    name = upload.name if services().settings.deidentify == "off" else str(number)
    try:
        return describe_file(name, intake.receive(upload.chunks, also=_note))
    except PermanentError as error:
        return describe_file(name, error)


def _note(session: Session, received: Received) -> None:
    """Write the audit row of each file in the transaction of its own rows."""
    note(files=1, study_ids=[str(received.study_id)])
    recorded(session)
