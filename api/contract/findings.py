"""Findings in a study's images: those of the active model, and the results of other models."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from pydantic import BaseModel, Field

from api.contract.models import ModelReference
from api.contract.studies import ImageFacts
from shared.bounded import Bounded
from shared.vocabulary.states import JobState

NOTICE = "For research use only. Not a medical device."

Box = tuple[float, float, float, float]


class FindingsQuery(Bounded):
    """Selects findings."""

    min_score: float = Field(0.0, ge=0, le=1, description="Leave out findings with a lower score.")
    model_id: UUID | None = Field(None, description="Findings of this model. Default: the active model.")


class FindingsFormat(StrEnum):
    """The formats of findings."""

    JSON = "json"
    JSONL = "jsonl"
    CSV = "csv"
    COCO = "coco"


class FindingsExportQuery(FindingsQuery):
    """Selects findings, and their format."""

    format: FindingsFormat = Field(
        FindingsFormat.JSON,
        description="`jsonl`: one study per line. `csv`: one finding per line. `coco`: a COCO document.",
    )


class OverlayQuery(FindingsQuery):
    """Selects the findings to draw."""

    min_score: float = Field(0.3, ge=0, le=1, description="Leave out findings with a lower score.")


class Finding(BaseModel):
    """One box, from the top left corner of the original image."""

    class_id: int
    class_name: str
    score: float
    #: In pixels of the original.
    box_xyxy_px: Box
    box_xyxy_mm: Box | None = Field(
        description="The box in mm, from the `pixel_spacing` of the image. Unless the spacing is calibrated, these are "
        "sizes at the detector, where the projection is larger than the body. Null if the spacing is unknown."
    )


class OtherResult(BaseModel):
    """The result of another model for an image. It is authoritative only if the request named a model."""

    job_id: UUID
    model: ModelReference
    #: Version of Carina that made the result.
    code_version: str | None
    finished_at: datetime | None
    #: The model's probability that the image shows any finding; None if it has no abnormality head.
    abnormality: float | None
    #: In order of falling score.
    findings: list[Finding]


@dataclass(frozen=True)
class ImageResult:
    """The result of one model for an image, or the reason why there is none."""

    job_id: UUID | None
    state: JobState | None
    code: str | None
    model: ModelReference | None
    is_authoritative: bool
    abnormality: float | None
    findings: Sequence[Finding]


class ImageFindings(ImageFacts):
    """The result of the active or requested model for one image; without findings until its job has succeeded."""

    image_id: UUID
    #: None if the image has no job of this model.
    job_id: UUID | None
    state: JobState | None
    code: str | None
    reason: str | None
    model: ModelReference | None
    #: Version of Carina that made the result.
    code_version: str | None
    #: Whether this is the active model's result.
    is_authoritative: bool
    #: The model's probability that the image shows any finding; None if it has no abnormality head, and until its job
    #: has succeeded.
    abnormality: float | None
    #: In order of falling score.
    findings: list[Finding]
    #: The results of other models; the most recently active model first.
    other_results: list[OtherResult]

    def results(self) -> Iterator[ImageResult]:
        """Yield the result of the requested model, then the results of other models."""
        yield ImageResult(
            self.job_id, self.state, self.code, self.model, self.is_authoritative, self.abnormality, self.findings
        )
        for other in self.other_results:
            yield ImageResult(
                other.job_id, JobState.SUCCEEDED, None, other.model, False, other.abnormality, other.findings
            )


class FindingsAnswer(BaseModel):
    """The findings of a study's images."""

    study_id: UUID
    #: The model whose findings are authoritative; None if no model is active.
    active_model: ModelReference | None
    images: list[ImageFindings]
    notice: str = NOTICE
