"""Evaluations: starting, showing and cancelling them; their reports."""

import json

from flask import Response
from flask_openapi3.types import ResponseDict

from api.contract.paging import PageQuery
from api.contract.training import (
    DetectionsFormat,
    DetectionsQuery,
    EvaluationAnswer,
    EvaluationPath,
    EvaluationRequest,
    EvaluationsAnswer,
)
from api.http.audit import unaudited
from api.http.auth import identity, requires
from api.http.errors import READS_OBJECTS, may_raise
from api.http.idempotency import idempotent
from api.http.resource import as_json, file_answer, resource
from api.http.rows import find_row, read_page
from api.http.services import services
from api.training.detections_formats import FORMATS, Detections, NoFindingIdTaken
from shared.erasure import DatasetErased
from shared.errors import NotFound, NotReady
from shared.object_store import dataset_key, result_key
from shared.suggestions import AmbiguousName
from shared.tables import Dataset, Evaluation
from shared.training import datasets
from shared.training.evaluations import start_evaluation
from shared.training.tasks import TaskIsFinal, cancel_task
from shared.vocabulary.states import Scope

#: A report is self-contained. The policy forbids scripts and requests.
REPORT_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

blueprint = resource("evaluations")

_DETECTIONS_EXAMPLE = {
    "images": [
        {"image_id": 1, "category_ids": [3], "boxes_xyxy": [[912.5, 1410.0, 1803.0, 1995.5]], "scores": [0.87]},
    ]
}
_REPORT: ResponseDict = {"200": file_answer("text/html", "The page.", "<!doctype html>…")}
_KAGGLE = FORMATS[DetectionsFormat.KAGGLE]
_FILES = (
    file_answer("application/json", "", _DETECTIONS_EXAMPLE),
    file_answer(_KAGGLE.media_type.partition(";")[0], "", _KAGGLE.example),
)
_DETECTIONS: ResponseDict = {
    "200": {
        "description": "The detections in the requested format.",
        "content": {kind: content for each in _FILES for kind, content in each["content"].items()},
    }
}


@blueprint.post("/v1/evaluations", responses={202: EvaluationAnswer})
@requires(Scope.TRAIN)
@idempotent
@may_raise(NotFound, NotReady, AmbiguousName, DatasetErased)
def evaluate(body: EvaluationRequest) -> Response:
    """Start an evaluation.

    Queues an evaluation of a model on a split of a dataset; a trainer performs it.
    """
    model_id = None if body.model == "active" else body.model
    with services().database.begin() as session:
        dataset = datasets.resolve(session, identity().project_id, body.dataset)
        evaluation = start_evaluation(session, model_id=model_id, dataset=dataset, config=body.config)
        return as_json(EvaluationAnswer.model_validate(evaluation), 202)


@blueprint.get("/v1/evaluations", responses={200: EvaluationsAnswer})
@requires(Scope.READ)
@unaudited("It shows figures of models.")
def show_all(query: PageQuery) -> Response:
    """List evaluations.

    The newest first.
    """
    with services().database.begin() as session:
        rows, following = read_page(session, Evaluation, query)
        return as_json(
            EvaluationsAnswer(evaluations=[EvaluationAnswer.model_validate(row) for row in rows], next=following)
        )


@blueprint.get("/v1/evaluations/<uuid:evaluation_id>", responses={200: EvaluationAnswer})
@requires(Scope.READ)
@unaudited("It shows figures of models.")
def show(path: EvaluationPath) -> Response:
    """Show an evaluation.

    Shows its progress and, when it has succeeded, its metrics.
    """
    with services().database.begin() as session:
        return as_json(EvaluationAnswer.model_validate(find_row(session, Evaluation, path.evaluation_id)))


@blueprint.get(
    "/v1/evaluations/<uuid:evaluation_id>/report",
    responses=_REPORT,
)
@requires(Scope.TRAIN)
@may_raise(NotReady, *READS_OBJECTS)
def show_report(path: EvaluationPath) -> Response:
    """Show an evaluation's report.

    A self-contained HTML page. It shows images of the dataset.
    """
    with services().database.begin() as session:
        sha256 = _require(find_row(session, Evaluation, path.evaluation_id).report_sha256)
    page = services().store.get(result_key(sha256, "html"), sha256=sha256)
    headers = {"Content-Security-Policy": REPORT_POLICY}
    return Response(page, headers=headers, content_type="text/html; charset=utf-8")


@blueprint.get(
    "/v1/evaluations/<uuid:evaluation_id>/detections",
    responses=_DETECTIONS,
)
@requires(Scope.TRAIN)
@may_raise(NotReady, NoFindingIdTaken, *READS_OBJECTS)
def show_detections(path: EvaluationPath, query: DetectionsQuery) -> Response:
    """Download an evaluation's detections.

    The model's detections on each image, in pixels of the original. `coco` and `kaggle` have the evaluated classes
    only: pycocotools and the scoring of the challenge then give the figures of the evaluation.
    """
    form, store = FORMATS[query.format], services().store
    with services().database.begin() as session:
        evaluation = find_row(session, Evaluation, path.evaluation_id)
        sha256, split, metrics = _require(evaluation.detections_sha256), evaluation.config["split"], evaluation.metrics
        digest = _require(session.get_one(Dataset, evaluation.dataset_id).digest)
    names: dict[int, str] = {}
    if query.format is not DetectionsFormat.JSON:
        images = json.loads(store.get(dataset_key(digest), sha256=digest))["images"]
        names = {image["id"]: image["file_name"] for image in images if image["split"] == split}
    detections = Detections(store.get(result_key(sha256, "json"), sha256=sha256), names, metrics or {})
    return Response(form.write(detections), content_type=form.media_type)


@blueprint.post("/v1/evaluations/<uuid:evaluation_id>/cancel", responses={200: EvaluationAnswer})
@requires(Scope.TRAIN)
@may_raise(TaskIsFinal)
def cancel(path: EvaluationPath) -> Response:
    """Cancel an evaluation.

    A trainer that works on it stops within seconds.
    """
    with services().database.begin() as session:
        cancel_task(session, Evaluation, path.evaluation_id)
        return as_json(EvaluationAnswer.model_validate(find_row(session, Evaluation, path.evaluation_id)))


def _require(sha256: str | None) -> str:
    if sha256 is None:
        raise NotReady("The evaluation has not succeeded yet.")
    return sha256
