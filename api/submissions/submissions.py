"""Bulk submissions: many files that are sent, retried and cancelled together."""

from uuid import UUID

import sqlalchemy as sa
from flask import Response
from sqlalchemy.orm import Session

from api.contract.paging import PageQuery
from api.contract.submissions import (
    ArrivedRequest,
    CreateQuery,
    FilesRequest,
    RetryAnswer,
    SubmissionAnswer,
    SubmissionCreated,
    SubmissionPath,
    SubmissionRequest,
    SubmissionsAnswer,
    UploadsAnswer,
    UploadsQuery,
)
from api.http.audit import note, unaudited
from api.http.auth import identity, requires
from api.http.body import takes
from api.http.errors import STORE_ERRORS, may_raise
from api.http.idempotency import idempotent
from api.http.resource import as_json, resource
from api.http.rows import find_row, read_page
from api.http.services import services
from api.submissions.announcing import announce, describe_uploads
from api.submissions.answers import describe_submission
from shared.database.notices import notify
from shared.errors import Forbidden, InvalidRequest, NotFound, RequestError
from shared.models import registry
from shared.object_store.incoming import Incoming, SourceRefused
from shared.settings.import_places import limit_prefix, read_places
from shared.submissions import changes
from shared.submissions.changes import SubmissionIsFinal, locked
from shared.submissions.progress import close, settle, tally
from shared.tables import Project, Submission, SubmissionFile
from shared.vocabulary.states import FileState, Scope, SubmissionState, WorkerKind

blueprint = resource("submissions")

#: Limit of a request that announces files, with the longest names.
_MAX_PAGE_BYTES = 1024**2


class SubmissionNotOpen(RequestError):
    """The submission is complete and accepts no more files."""

    code = "submission_not_open"
    status = 409


class BucketNotAllowed(Forbidden):
    """`CARINA_IMPORT_BUCKETS` does not allow this project to import from this place."""

    code = "bucket_not_allowed"


class BucketUnreadable(RequestError):
    """The bucket does not exist, or does not allow Carina to list it."""

    code = "bucket_unreadable"
    status = 422


@blueprint.post("/v1/submissions", responses={201: SubmissionCreated})
@requires(Scope.SUBMIT)
@takes(_MAX_PAGE_BYTES)
@idempotent
@may_raise(BucketNotAllowed, BucketUnreadable, NotFound, *STORE_ERRORS)
def create(query: CreateQuery, body: SubmissionRequest) -> Response:
    """Create a submission.

    A submission groups many files. Announce the first files with their size and SHA-256; the answer says where to
    upload each. With `from=s3://bucket/prefix`, Carina imports the files of a bucket instead.
    """
    if query.from_ is not None and body.files:
        raise InvalidRequest("Send either `files` or `from`, not both.")
    bucket, prefix = _source(query.from_)
    with services().database.begin() as session:
        if body.model_id is not None:
            registry.require(session, body.model_id, parameter="model_id")
        submission = Submission(
            project_id=identity().project_id,
            api_key_id=identity().key_id,
            priority=body.priority,
            requested_model_id=body.model_id,
            source_bucket=bucket,
            source_prefix=prefix,
        )
        session.add(submission)
        session.flush()
        rows = announce(session, submission, body.files) if body.files else []
        session.refresh(submission)
        answer = describe(session, submission)
        note(submission_id=answer.id, files=len(rows))
        session.expunge_all()
    if bucket is not None:
        services().hints.send(WorkerKind.INTAKE, 1)
    return as_json(SubmissionCreated(submission=answer, uploads=describe_uploads(rows)), 201)


@blueprint.get("/v1/submissions", responses={200: SubmissionsAnswer})
@requires(Scope.READ)
@unaudited("It shows counts and states.")
def show_all(query: PageQuery) -> Response:
    """List submissions.

    Returns the submissions of the project, the newest first.
    """
    with services().database.begin() as session:
        rows, following = read_page(session, Submission, query)
        answers = [describe(session, row) for row in rows]
    return as_json(SubmissionsAnswer(submissions=answers, next=following))


@blueprint.post("/v1/submissions/<uuid:submission_id>/files", responses={200: UploadsAnswer})
@requires(Scope.SUBMIT)
@takes(_MAX_PAGE_BYTES)
@idempotent
@may_raise(SubmissionNotOpen, *STORE_ERRORS)
def add_files(path: SubmissionPath, body: FilesRequest) -> Response:
    """Announce more files of a submission.

    The submission must still be open. The answer says where to upload each file.
    """
    with services().database.begin() as session:
        submission = locked(session, identity().project_id, path.submission_id)
        if submission.state != SubmissionState.OPEN or submission.source_bucket is not None:
            raise SubmissionNotOpen
        rows = announce(session, submission, body.files)
        session.refresh(submission)
        note(files=len(rows))
        session.expunge_all()
    return as_json(UploadsAnswer(uploads=describe_uploads(rows)))


@blueprint.get("/v1/submissions/<uuid:submission_id>/uploads", responses={200: UploadsAnswer})
@requires(Scope.SUBMIT)
@may_raise(*STORE_ERRORS)
def show_uploads(path: SubmissionPath, query: UploadsQuery) -> Response:
    """List the files that are not uploaded yet.

    Returns fresh upload URLs, for example after the first ones have expired.
    """
    with services().database.begin() as session:
        submission = find_row(session, Submission, path.submission_id)
        expected = sa.select(SubmissionFile).where(
            SubmissionFile.submission_id == submission.id,
            SubmissionFile.state == FileState.EXPECTED,
            SubmissionFile.number > query.after,
        )
        found = session.scalars(expected.order_by(SubmissionFile.number).limit(query.limit + 1)).all()
        session.expunge_all()
    uploads = describe_uploads(found[: query.limit])
    # Files without a URL, because the answer is full, begin the next page.
    told = [upload for upload in uploads if upload.url is not None or upload.parts is not None]
    return as_json(UploadsAnswer(uploads=told, next=told[-1].number if len(told) < len(found) else None))


@blueprint.post("/v1/submissions/<uuid:submission_id>/arrived", responses={200: SubmissionAnswer})
@requires(Scope.SUBMIT)
def mark_arrived(path: SubmissionPath, body: ArrivedRequest) -> Response:
    """Report finished uploads.

    Carina then checks these files. Files that are already being processed are not changed.
    """
    with services().database.begin() as session:
        submission = find_row(session, Submission, path.submission_id)
        arrived = sa.update(SubmissionFile).where(
            SubmissionFile.submission_id == submission.id,
            SubmissionFile.number.in_(body.numbers),
            SubmissionFile.state == FileState.EXPECTED,
        )
        arrived = arrived.values(state=FileState.ARRIVED, available_at=sa.func.now()).returning(SubmissionFile.number)
        count = len(session.scalars(arrived.execution_options(synchronize_session=False)).all())
        note(files=count)
        notify(session, [submission.id])
        answer = describe(session, submission)
    services().hints.send(WorkerKind.INTAKE, count)
    return as_json(answer)


@blueprint.post("/v1/submissions/<uuid:submission_id>/complete", responses={200: SubmissionAnswer})
@requires(Scope.SUBMIT)
@may_raise(SubmissionNotOpen)
def complete(path: SubmissionPath) -> Response:
    """Complete a submission.

    Tells Carina that all files are announced and uploaded. A second call changes nothing.
    """
    with services().database.begin() as session:
        submission = find_row(session, Submission, path.submission_id)
        if submission.state == SubmissionState.OPEN and submission.source_bucket is not None:
            raise SubmissionNotOpen("The submission is completed by Carina when its bucket has been listed.")
        count = close(session, submission.id)
        note(files=count)
    services().hints.send(WorkerKind.INTAKE, count)
    return as_json(read_progress(path.submission_id))


@blueprint.post("/v1/submissions/<uuid:submission_id>/retry", responses={200: RetryAnswer})
@requires(Scope.SUBMIT)
@idempotent
@may_raise(SubmissionIsFinal)
def retry(path: SubmissionPath) -> Response:
    """Retry the failed files of a submission.

    Only files that failed are processed again. Files that did not arrive are to be uploaded again.
    """
    with services().database.begin() as session:
        submission = locked(session, identity().project_id, path.submission_id)
        retried = changes.retry(session, submission)
        to_upload = retried.files.count(FileState.EXPECTED)
        count = len(retried.files) + len(retried.jobs)
        note(files=count)
        session.flush()
        session.refresh(submission)
        answer = describe(session, submission)
    services().hints.send(WorkerKind.INTAKE, len(retried.files) - to_upload)
    services().hints.send_for(retried.jobs)
    return as_json(RetryAnswer(retried=count - to_upload, to_upload=to_upload, submission=answer))


@blueprint.post("/v1/submissions/<uuid:submission_id>/cancel", responses={200: SubmissionAnswer})
@requires(Scope.SUBMIT)
@may_raise(SubmissionIsFinal)
def cancel(path: SubmissionPath) -> Response:
    """Cancel a submission.

    Cancels the files and jobs that have not finished. Results that exist are kept.
    """
    with services().database.begin() as session:
        submission = locked(session, identity().project_id, path.submission_id)
        changes.cancel(session, submission)
        session.refresh(submission)
        answer = describe(session, submission)
    return as_json(answer)


def read_progress(submission_id: UUID) -> SubmissionAnswer:
    """Return a submission's progress. If nothing is left to do, it is finished now instead of at the next sweep."""
    with services().database.begin() as session:
        answer = describe(session, find_row(session, Submission, submission_id))
    counts = answer.counts
    if answer.state != SubmissionState.PROCESSING or counts.expected + counts.arrived + counts.accepted:
        return answer
    with services().database.unrecorded().begin() as session:
        settle(session, submission_id)
        return describe(session, find_row(session, Submission, submission_id))


def describe(session: Session, submission: Submission) -> SubmissionAnswer:
    """Describe the current state of a submission."""
    counted = tally(session, submission)
    return describe_submission(submission, counted, session.scalars(sa.select(sa.func.now())).one())


def allowed_prefix(bucket: str, prefix: str) -> str:
    """Return the part of a prefix that this project may read; raise `BucketNotAllowed`."""
    with services().database.begin() as session:
        project = session.get_one(Project, identity().project_id).name
    limited = limit_prefix(read_places(services().settings.import_buckets), project, bucket, prefix)
    if limited is None:
        raise BucketNotAllowed
    return limited


def _source(url: str | None) -> tuple[str | None, str | None]:
    """Parse `s3://bucket/prefix`; raise `BucketNotAllowed` and `BucketUnreadable`."""
    if url is None:
        return None, None
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    settings = services().settings
    if bucket == settings.s3_bucket:
        raise BucketNotAllowed
    prefix = allowed_prefix(bucket, prefix)
    try:
        Incoming(settings).list_page(bucket, prefix, after=None, limit=1)
    except SourceRefused as exc:
        raise BucketUnreadable from exc
    return bucket, prefix
