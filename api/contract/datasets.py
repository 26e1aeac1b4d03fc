"""Datasets and their imports."""

from typing import Any
from uuid import UUID

from pydantic import BaseModel, Field

from api.contract.paging import Page, PageQuery
from api.contract.training import TaskAnswer
from shared.bounded import Bounded


class DatasetPath(Bounded):
    """Identifies a dataset."""

    dataset_id: UUID


class DatasetsQuery(PageQuery):
    """Selects datasets."""

    named: str | None = Field(
        None,
        max_length=100,
        description="Only the dataset with this id, this beginning of an id, or this name. If several datasets have "
        "the name, the latest that has succeeded is returned, or the latest if none has succeeded.",
    )


class DatasetAnswer(TaskAnswer):
    """An import and, after it has succeeded, its dataset. `progress` contains `what`, `done`, `total` and `failed`."""

    name: str
    source: dict[str, Any]
    #: SHA-256 of the COCO document. This and all following fields are None before the import has succeeded.
    digest: str | None
    rendition_version: int | None
    image_count: int | None
    box_count: int | None
    #: Images that could not be imported; each is listed among the failures.
    failure_count: int | None
    #: Images whose study was erased later. If there are any, the dataset cannot be used for training and evaluation.
    erased_count: int = 0
    #: Counts by split, class, reader and box size; failures by code; `noted`, the entries left out or changed, by code;
    #: and `notes`, a sentence for each of these and each warning, with the first three lines or annotations.
    summary: dict[str, Any] | None


class DatasetsAnswer(Page):
    """Datasets, the newest first."""

    datasets: list[DatasetAnswer]


class FailedImage(BaseModel):
    """An image that could not be imported, and the reason."""

    file_name: str
    #: Stable, for use by programs.
    code: str
    reason: str


class FailuresAnswer(BaseModel):
    """All images that could not be imported, by name."""

    failures: list[FailedImage]
