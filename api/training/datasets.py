"""Datasets: importing, showing and cancelling them."""

from flask import Response
from flask_openapi3.types import ResponseDict

from api.contract.datasets import (
    DatasetAnswer,
    DatasetPath,
    DatasetsAnswer,
    DatasetsQuery,
    FailedImage,
    FailuresAnswer,
)
from api.http.audit import unaudited
from api.http.auth import identity, requires
from api.http.errors import READS_OBJECTS, may_raise
from api.http.idempotency import idempotent
from api.http.resource import as_json, file_answer, resource
from api.http.rows import find_row, read_page
from api.http.services import services
from api.submissions.submissions import BucketNotAllowed, allowed_prefix
from shared.errors import NotFound, NotReady
from shared.object_store import dataset_key, result_key
from shared.suggestions import AmbiguousName
from shared.tables import Dataset
from shared.training import datasets
from shared.training.dataset_source import DatasetRequest
from shared.training.tasks import TaskIsFinal, cancel_task
from shared.vocabulary.states import Scope

blueprint = resource("datasets")

_COCO_EXAMPLE = {
    "images": [{"id": 1, "file_name": "0042.dicom", "width": 2500, "height": 3000, "split": "train"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 3, "bbox": [912.5, 1410.0, 890.5, 585.5], "area": 521387.75}
    ],
    "categories": [{"id": 3, "name": "Cardiomegaly"}],
}
_COCO: ResponseDict = {"200": file_answer("application/json", "The COCO document.", _COCO_EXAMPLE)}


@blueprint.post("/v1/datasets", responses={202: DatasetAnswer})
@requires(Scope.TRAIN)
@idempotent
@may_raise(BucketNotAllowed)
def import_(body: DatasetRequest) -> Response:
    """Import a dataset.

    Queues an import; a trainer performs it. With the format `reviews`, the dataset is made of the project's images
    whose review is complete. Otherwise annotations and images are keys of the object store (of `yolo` and `voc`, both
    are prefixes), outside Carina's own folders, or `s3://bucket/key` at a place that `CARINA_IMPORT_BUCKETS` allows.
    Importing the same name again makes a new version.
    """
    bucket = services().settings.s3_bucket
    request = body.in_bucket(bucket).in_project(identity().project_id)
    for place in request.places():
        allowed_prefix(bucket, place)
    with services().database.begin() as session:
        dataset = Dataset(name=request.name, source=request.source.model_dump(mode="json"))
        session.add(dataset)
        session.flush()
        return as_json(DatasetAnswer.model_validate(dataset), 202)


@blueprint.get("/v1/datasets", responses={200: DatasetsAnswer})
@requires(Scope.READ)
@unaudited("It shows counts and settings of imports.")
@may_raise(NotFound, AmbiguousName)
def show_all(query: DatasetsQuery) -> Response:
    """List datasets.

    Returns datasets and imports, the newest first; with `named` the latest one of that name.
    """
    with services().database.begin() as session:
        if query.named is not None:
            found = datasets.find(session, identity().project_id, query.named, parameter="named")
            return as_json(DatasetsAnswer(datasets=[DatasetAnswer.model_validate(found)], next=None))
        rows, following = read_page(session, Dataset, query)
        return as_json(DatasetsAnswer(datasets=[DatasetAnswer.model_validate(row) for row in rows], next=following))


@blueprint.get("/v1/datasets/<uuid:dataset_id>", responses={200: DatasetAnswer})
@requires(Scope.READ)
@unaudited("It shows counts and settings of imports.")
def show(path: DatasetPath) -> Response:
    """Show a dataset.

    Shows the progress of its import and, when that has succeeded, its contents.
    """
    with services().database.begin() as session:
        return as_json(DatasetAnswer.model_validate(find_row(session, Dataset, path.dataset_id)))


@blueprint.get("/v1/datasets/<uuid:dataset_id>/coco", responses=_COCO)
@requires(Scope.TRAIN)
@may_raise(NotReady, *READS_OBJECTS)
def show_coco(path: DatasetPath) -> Response:
    """Download a dataset as a COCO document.

    Boxes are in pixels of the originals.
    """
    with services().database.begin() as session:
        digest = _require(find_row(session, Dataset, path.dataset_id).digest)
    return Response(services().store.get(dataset_key(digest), sha256=digest), content_type="application/json")


@blueprint.get("/v1/datasets/<uuid:dataset_id>/failures", responses={200: FailuresAnswer})
@requires(Scope.TRAIN)
@may_raise(NotReady, *READS_OBJECTS)
def show_failures(path: DatasetPath) -> Response:
    """List the images that an import could not use.

    Each with a code and a reason.
    """
    with services().database.begin() as session:
        sha256 = _require(find_row(session, Dataset, path.dataset_id).failures_sha256)
    lines = services().store.get(result_key(sha256, "jsonl"), sha256=sha256).splitlines()
    return as_json(FailuresAnswer(failures=[FailedImage.model_validate_json(line) for line in lines]))


@blueprint.post("/v1/datasets/<uuid:dataset_id>/cancel", responses={200: DatasetAnswer})
@requires(Scope.TRAIN)
@may_raise(TaskIsFinal)
def cancel(path: DatasetPath) -> Response:
    """Cancel an import.

    A trainer that works on it stops within seconds.
    """
    with services().database.begin() as session:
        cancel_task(session, Dataset, path.dataset_id)
        return as_json(DatasetAnswer.model_validate(find_row(session, Dataset, path.dataset_id)))


def _require(sha256: str | None) -> str:
    if sha256 is None:
        raise NotReady("The import has not succeeded yet.")
    return sha256
