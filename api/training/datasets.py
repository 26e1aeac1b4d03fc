"""Datasets: importing one from the object store, where it stands, and what is in it."""

from flask import Response
from sqlalchemy.orm import Session

from api.contract.datasets import (
    COCO,
    DatasetAnswer,
    DatasetPath,
    DatasetsAnswer,
    DatasetsQuery,
    FailedImage,
    FailuresAnswer,
)
from api.http.audit import unaudited
from api.http.auth import identity, requires
from api.http.idempotency import idempotent
from api.http.paging import read_page
from api.http.resource import as_json, resource
from api.http.services import services
from api.submissions.submissions import allowed_prefix
from shared.errors import NotFound, NotReady
from shared.object_store import dataset_key, result_key
from shared.tables import Dataset
from shared.training import datasets
from shared.training.dataset_source import DatasetRequest
from shared.training.tasks import cancel_task
from shared.vocabulary.states import Scope

blueprint = resource("datasets")


@blueprint.post("/v1/datasets", responses={202: DatasetAnswer})
@requires(Scope.TRAIN)
@idempotent
def import_(body: DatasetRequest) -> Response:
    """Queue an import of what lies in the object store, or of what readers made of findings; a trainer takes it up.

    Format `reviews` takes the images of the key's project whose review is done. For the others annotations and images
    are named by key and prefix, outside Carina's own folders, or as `s3://BUCKET/KEY`, at a place that
    `CARINA_IMPORT_BUCKETS` gives the key's project. The same name again is a new version.
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
def show_all(query: DatasetsQuery) -> Response:
    """Show datasets, the newest first; `named` finds one by its name."""
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
    """Show where an import stands, and what is in the dataset."""
    with services().database.begin() as session:
        return as_json(DatasetAnswer.model_validate(_find(session, path)))


@blueprint.get("/v1/datasets/<uuid:dataset_id>/coco", responses={200: COCO})
@requires(Scope.TRAIN)
def show_coco(path: DatasetPath) -> Response:
    """Send the dataset as a COCO document: boxes in pixels of the originals, and the digests of all images."""
    with services().database.begin() as session:
        digest = _require(_find(session, path).digest)
    return Response(services().store.get(dataset_key(digest), sha256=digest), content_type="application/json")


@blueprint.get("/v1/datasets/<uuid:dataset_id>/failures", responses={200: FailuresAnswer})
@requires(Scope.TRAIN)
def show_failures(path: DatasetPath) -> Response:
    """Show every image that could not be taken, and why."""
    with services().database.begin() as session:
        sha256 = _require(_find(session, path).failures_sha256)
    lines = services().store.get(result_key(sha256, "jsonl"), sha256=sha256).splitlines()
    return as_json(FailuresAnswer(failures=[FailedImage.model_validate_json(line) for line in lines]))


@blueprint.post("/v1/datasets/<uuid:dataset_id>/cancel", responses={200: DatasetAnswer})
@requires(Scope.TRAIN)
def cancel(path: DatasetPath) -> Response:
    """End an import that has not come to its end; a trainer that is at it notices within seconds."""
    with services().database.begin() as session:
        cancel_task(session, Dataset, path.dataset_id)
        return as_json(DatasetAnswer.model_validate(_find(session, path)))


def _find(session: Session, path: DatasetPath) -> Dataset:
    dataset = session.get(Dataset, path.dataset_id)
    if dataset is None:
        raise NotFound(f"There is no dataset {path.dataset_id}.")
    return dataset


def _require(sha256: str | None) -> str:
    if sha256 is None:
        raise NotReady("The import has not succeeded, so there is nothing to show yet.")
    return sha256
