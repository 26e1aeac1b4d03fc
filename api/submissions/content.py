"""Uploads of submission files through this API. Each file is processed while it arrives."""

from dataclasses import dataclass
from uuid import UUID

import sqlalchemy as sa
from flask import Response, request
from sqlalchemy.orm import Session

from api.contract.submissions import FilePath, ManifestRow
from api.http.audit import note
from api.http.auth import identity, requires
from api.http.body import Body, takes_uploads
from api.http.errors import may_raise
from api.http.resource import as_json, resource
from api.http.rows import find_row
from api.http.services import services
from api.submissions.manifest import read_row
from shared.database.notices import notify
from shared.errors import (
    CarinaError,
    NotFound,
    PermanentError,
    Place,
    RequestError,
    SizeMismatch,
    UploadError,
)
from shared.intake.acceptance import accept
from shared.intake.archives import ArchiveKind
from shared.intake.receive import Received, in_parts
from shared.object_store.checked_stream import CheckedStream
from shared.submissions.progress import incoming_key, settle
from shared.tables import Submission, SubmissionFile
from shared.vocabulary.states import FileState, Scope, WorkerKind

blueprint = resource("content", tag="submissions")

#: States in which an upload is accepted.
_WANTED = (FileState.EXPECTED, FileState.ARRIVED)
#: States after the upload. A repeated upload gets the same answer as the first one.
_DONE = (
    FileState.CHECKING,
    FileState.ACCEPTED,
    FileState.DUPLICATE,
    FileState.UNPACKED,
    FileState.REJECTED,
    FileState.FAILED,
)
_BYTES = {"required": True, "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}


class FileNotExpected(RequestError):
    """The submission does not expect an upload of this file."""

    code = "file_not_expected"
    status = 409


class ArchiveNotTaken(PermanentError):
    """Archives are not accepted while originals are de-identified. Send the files one by one."""

    code = "archive_not_taken"
    places = Place.FILE


@dataclass(frozen=True)
class _Expected:
    """An announced file."""

    submission_id: UUID
    number: int
    byte_count: int
    sha256: str
    priority: int
    model_id: UUID | None
    #: The key whose quota it counts against.
    key_id: UUID | None

    def row(self) -> sa.ColumnElement[bool]:
        return sa.and_(SubmissionFile.submission_id == self.submission_id, SubmissionFile.number == self.number)


@blueprint.put(
    "/v1/submissions/<uuid:submission_id>/files/<int:number>/content",
    responses={200: ManifestRow},
    openapi_extensions={"requestBody": _BYTES},
)
@requires(Scope.SUBMIT)
@takes_uploads
@may_raise(FileNotExpected)
def put(path: FilePath) -> Response:
    """Upload a file of a submission.

    Send the file's bytes as the body. The answer comes when the file is stored or rejected. Sending it again is safe
    and gets the same answer.
    """
    file = _expected(path)
    if file is not None:
        try:
            _receive(file)
        except FileNotExpected:
            if _expected(path) is not None:  # else the same upload, sent twice, has finished in another request
                raise
        with services().database.unrecorded().begin() as session:
            settle(session, path.submission_id)
    with services().database.begin() as session:
        return as_json(read_row(session, path.submission_id, path.number))


def _expected(path: FilePath) -> _Expected | None:
    """Return the expected file; None if it is uploaded already. Raise `FileNotExpected`."""
    with services().database.begin() as session:
        submission = find_row(session, Submission, path.submission_id)
        row = session.get(SubmissionFile, (path.submission_id, path.number))
        if row is None:
            raise NotFound(f"There is no file {path.number} in this submission.")
        if row.state in _DONE:
            return None
        if row.state not in _WANTED or row.byte_count is None or row.sha256 is None:
            raise FileNotExpected(f"The file is {row.state}.")
        return _Expected(
            submission_id=submission.id,
            number=row.number,
            byte_count=row.byte_count,
            sha256=row.sha256,
            priority=submission.priority,
            model_id=submission.requested_model_id,
            key_id=submission.api_key_id,
        )


def _receive(file: _Expected) -> None:
    """Process the body, or record why it is rejected; raise `FileNotExpected`."""
    try:
        _take_in(file)
    except PermanentError as error:
        _end(file, FileState.REJECTED, error)
    except UploadError as error:
        _end(file, FileState.FAILED, error)


def _take_in(file: _Expected) -> None:
    """Process the body; raises what `Intake.receive` raises, `UploadError` and `FileNotExpected`."""
    if request.content_length not in (None, file.byte_count):
        raise SizeMismatch
    # The announced size was checked already; archives may be larger than single files.
    max_bytes = services().settings.max_upload_bytes
    body = Body(request, max_bytes=max(max_bytes, file.byte_count))
    stream = CheckedStream(body.chunks(), byte_count=file.byte_count, sha256=file.sha256)

    def finish(session: Session, received: Received) -> None:
        note(study_id=received.study_id, image_id=received.image_id, job_id=received.job_id)
        values = {"state": received.outcome, "image_id": received.image_id, "job_id": received.job_id}
        _change(session, file, **values, finished_at=sa.func.now())

    def take_archive(_: ArchiveKind) -> FileState:
        if services().settings.deidentify != "off":
            raise ArchiveNotTaken  # identifiable files would be stored until it is unpacked
        services().store.put_parts(incoming_key(file.submission_id, file.number), in_parts(stream))
        _move(file, state=FileState.ARRIVED, available_at=sa.func.now())
        services().hints.send(WorkerKind.INTAKE, 1)
        return FileState.ARRIVED

    intake = services().intake(
        identity().project_id,
        priority=file.priority,
        model_id=file.model_id,
        submission_id=file.submission_id,
        key_id=file.key_id,
    )
    try:
        accept(
            stream,
            intake,
            file_bytes=file.byte_count,
            max_bytes=max_bytes,
            finish=finish,
            take_archive=take_archive,
        )
    finally:
        intake.send_hints()


def _end(file: _Expected, state: FileState, error: CarinaError) -> None:
    _move(file, state=state, code=error.code, reason=error.public_detail, finished_at=sa.func.now())


def _move(file: _Expected, **values: object) -> None:
    with services().database.begin() as session:
        _change(session, file, **values)


def _change(session: Session, file: _Expected, **values: object) -> None:
    """Change a file that is still expected; raise `FileNotExpected` if it was cancelled or processed meanwhile."""
    wanted = sa.update(SubmissionFile).where(file.row(), SubmissionFile.state.in_(_WANTED))
    wanted = wanted.values(**values).returning(SubmissionFile.number)
    if session.scalar(wanted.execution_options(synchronize_session=False)) is None:
        raise FileNotExpected
    notify(session, [file.submission_id])
