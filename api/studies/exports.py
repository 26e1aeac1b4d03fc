"""Exports the findings of a study, or of all images of a submission, in any format. Long exports are read while sent.

Each slice of studies is read in its own transaction, so that a slow client does not occupy a database connection.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import IO, Any
from uuid import UUID

import sqlalchemy as sa
from flask import Response
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session

from api.contract.findings import FindingsAnswer, FindingsExportQuery, FindingsFormat
from api.contract.submissions import SubmissionPath
from api.http.auth import requires
from api.http.errors import may_raise
from api.http.resource import as_json, resource
from api.http.rows import find_row
from api.http.services import services
from api.studies.findings import read_findings
from api.studies.findings_formats import FORMATS, ModelsDiffer, UsedModel
from shared.database import Database, is_any
from shared.processes.scratch import spooled_file
from shared.studies.results import authoritative_first
from shared.tables import Image, Job, Model, Submission, SubmissionFile
from shared.vocabulary.states import JobState, Scope

blueprint = resource("exports", tag="studies")

#: Number of images whose findings are read at once.
_SLICE_IMAGES = 200
#: A pair of ids in bytes; more pairs than this are kept on disk instead of in memory.
_PAIR_BYTES, _PAIRS_IN_MEMORY = 32, 32_768

_STUDIES = {"type": "array", "items": {"$ref": "#/components/schemas/FindingsAnswer"}}
_ANSWER: dict[str, Any] = {
    "description": "Findings in the format that was asked for.",
    "content": {
        each.media_type.partition(";")[0]: (
            {"schema": {"type": "string"}, "example": each.example} if each.example else {"schema": _STUDIES}
        )
        for each in FORMATS.values()
    },
}


@blueprint.get("/v1/submissions/<uuid:submission_id>/findings", responses={200: _ANSWER})
@requires(Scope.READ)
@may_raise(ModelsDiffer)
def of_submission(path: SubmissionPath, query: FindingsExportQuery) -> Response:
    """Export the findings of a submission.

    The answer has each study once, with the images that were sent in this submission. `json` is an array of what
    `GET /v1/studies/{study_id}/findings` returns; the other formats are the same as there. The answer is a stream.
    """
    database = services().database
    with database.begin() as session:
        find_row(session, Submission, path.submission_id)
    sent = sa.select(SubmissionFile.image_id).where(SubmissionFile.submission_id == path.submission_id)
    return _respond(database, Image.id.in_(sent), query)


def export_study(study_id: UUID, query: FindingsExportQuery) -> Response:
    """Return a study's findings: as JSON one object, in other formats as for a submission."""
    database = services().database
    if query.format is not FindingsFormat.JSON:
        return _respond(database, Image.study_id == study_id, query)
    with database.begin() as session:
        images = session.scalars(sa.select(Image).where(Image.study_id == study_id).order_by(Image.id)).all()
        return as_json(read_findings(session, {study_id: images}, query)[0])


def _respond(database: Database, which: sa.ColumnElement[bool], query: FindingsExportQuery) -> Response:
    form = FORMATS[query.format]

    def find_models() -> Sequence[UsedModel]:
        with database.begin() as session:
            return _models_shown(session, which, query.model_id)

    pieces = form.write(_studies(database, which, query), find_models)
    return Response(pieces, content_type=form.media_type)


def _models_shown(session: Session, which: sa.ColumnElement[bool], model_id: UUID | None) -> Sequence[UsedModel]:
    """Return the models whose result comes first for an image: the requested one, else the authoritative one."""
    first = sa.select(Job.model_id).join(Model, Model.id == Job.model_id).join(Image, Image.id == Job.image_id)
    first = first.where(Job.state == JobState.SUCCEEDED, which).ext(distinct_on(Job.image_id))
    asked_first = [(Job.model_id == model_id).desc()] if model_id else []
    first = first.order_by(Job.image_id, *asked_first, *authoritative_first())
    used = sa.select(Model.id, Model.name, Model.card).where(Model.id.in_(first)).order_by(Model.id)
    return [UsedModel(*row) for row in session.execute(used)]


def _studies(database: Database, which: sa.ColumnElement[bool], query: FindingsExportQuery) -> Iterator[FindingsAnswer]:
    with spooled_file(_PAIR_BYTES * _PAIRS_IN_MEMORY) as pairs:
        with database.begin() as session:
            ordered = sa.select(Image.study_id, Image.id).where(which).order_by(Image.study_id, Image.id)
            for study_id, image_id in session.execute(ordered.execution_options(yield_per=10_000)):
                pairs.write(study_id.bytes + image_id.bytes)
        pairs.seek(0)
        for image_ids in _slices(pairs):
            with database.begin() as session:
                images = session.scalars(sa.select(Image).where(is_any(Image.id, image_ids)))
                studies: dict[UUID, list[Image]] = {}
                for image in sorted(images, key=lambda image: (image.study_id, image.id)):
                    studies.setdefault(image.study_id, []).append(image)
                answers = read_findings(session, studies, query)
            yield from answers


def _slices(pairs: IO[bytes]) -> Iterator[list[UUID]]:
    """Yield the images of complete studies, about `_SLICE_IMAGES` at a time."""
    ids = iter(lambda: pairs.read(_PAIR_BYTES), b"")
    part: list[UUID] = []
    for _, of_study in groupby(((pair[:16], pair[16:]) for pair in ids), key=itemgetter(0)):
        part += (UUID(bytes=image_id) for _, image_id in of_study)
        if len(part) >= _SLICE_IMAGES:
            yield part
            part = []
    if part:
        yield part
