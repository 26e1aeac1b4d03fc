"""The manifest of a submission: one row per file, streamed in slices.

Each slice is a transaction of its own, so a slow client holds no connection and delays no vacuum.
"""

import io
import json
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from flask import Response
from sqlalchemy.orm import Session

from api.contract.submissions import ManifestPage, ManifestQuery, ManifestRow, SubmissionPath
from api.http.auth import requires
from api.http.resource import as_json, resource
from api.http.rows import find_row
from api.http.services import services
from shared.csv_cells import CsvWriter
from shared.database import Database
from shared.errors import NotFound
from shared.submissions.progress import CODE, JOB_OF_FILE, OUTCOME, REASON
from shared.tables import Image, Job, Submission, SubmissionFile
from shared.vocabulary.states import Scope

blueprint = resource("manifest", tag="submissions")

#: Rows of a slice.
_SLICE_ROWS = 5000
_FIELDS = tuple(ManifestRow.model_fields)
_TYPES = {"jsonl": "application/jsonl", "csv": "text/csv; charset=utf-8"}
_PAGE = ManifestPage.model_json_schema(mode="serialization", ref_template="#/components/schemas/{model}")
_ANSWER: dict[str, Any] = {
    "description": "A page of rows, or a stream of all.",
    "content": {
        "application/json": {"schema": {name: value for name, value in _PAGE.items() if name != "$defs"}},
        "application/jsonl": {"schema": {"type": "string"}, "example": '{"number":0,"outcome":"succeeded",…}\n'},
        "text/csv": {"schema": {"type": "string"}, "example": "number,name,…\r\n0,chest-001.dcm,…\r\n"},
    },
}


@blueprint.get("/v1/submissions/<uuid:submission_id>/manifest", responses={200: _ANSWER})
@requires(Scope.READ)
def show(path: SubmissionPath, query: ManifestQuery) -> Response:
    """Show the outcome of each file of a submission.

    As a page of JSON, or with `format` all rows as a stream of JSON lines or CSV.
    """
    with services().database.begin() as session:
        find_row(session, Submission, path.submission_id)
        if query.format == "json":
            rows = _read(session, path.submission_id, query.after, query.limit + 1)
            page = [ManifestRow(**dict(zip(_FIELDS, row, strict=True))) for row in rows[: query.limit]]
            return as_json(ManifestPage(files=page, next=page[-1].number if len(rows) > query.limit else None))
    write = {"jsonl": _as_json_lines, "csv": _as_csv}[query.format]
    slices = _slices(services().database, path.submission_id, query.after)
    head = [",".join(_FIELDS) + "\r\n"] if query.format == "csv" else []
    return Response(chain(head, map(write, slices)), content_type=_TYPES[query.format])


def read_row(session: Session, submission_id: UUID, number: int) -> ManifestRow:
    """Return one file's row; raise `NotFound`."""
    for row in _read(session, submission_id, number - 1, 1):
        if row[0] == number:
            return ManifestRow(**dict(zip(_FIELDS, row, strict=True)))
    raise NotFound


def _read(session: Session, submission_id: UUID, after: int, limit: int) -> Sequence[Sequence[Any]]:
    """Return the next rows, with the columns of `_FIELDS`."""
    outcome = OUTCOME + sa.func.coalesce(sa.literal(":") + CODE, "")
    rows = (
        sa.select(
            SubmissionFile.number,
            SubmissionFile.name,
            SubmissionFile.archive_number,
            SubmissionFile.entry_number,
            SubmissionFile.byte_count,
            SubmissionFile.sha256,
            outcome,
            REASON,
            # As text: making and writing a `UUID` takes longer than the rest of a row.
            *(sa.cast(id_, sa.Text) for id_ in (Image.study_id, SubmissionFile.image_id, SubmissionFile.job_id)),
            Image.flags,
        )
        .select_from(SubmissionFile)
        .join(Job, JOB_OF_FILE, isouter=True)
        .join(Image, Image.id == SubmissionFile.image_id, isouter=True)
        .where(SubmissionFile.submission_id == submission_id, SubmissionFile.number > after)
        .order_by(SubmissionFile.number)
        .limit(limit)
    )
    return session.execute(rows).all()


def _slices(database: Database, submission_id: UUID, after: int) -> Iterator[Sequence[Sequence[Any]]]:
    while True:
        with database.begin() as session:
            rows = _read(session, submission_id, after, _SLICE_ROWS)
        if rows:
            yield rows
            after = rows[-1][0]
        if len(rows) < _SLICE_ROWS:
            return


def _as_csv(rows: Sequence[Sequence[Any]]) -> str:
    lines = io.StringIO()
    CsvWriter(lines).write_all((*row[:-1], " ".join(row[-1] or ())) for row in rows)
    return lines.getvalue()


def _as_json_lines(rows: Sequence[Sequence[Any]]) -> str:
    write = json.JSONEncoder(ensure_ascii=False, default=str, separators=(",", ":")).encode
    return "".join(f"{write(dict(zip(_FIELDS, row, strict=True)))}\n" for row in rows)
