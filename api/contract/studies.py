"""What the API says of studies, their images, and what was found on them; see `api.contract.schemas`."""

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel, Field

from api.contract.schemas import NOTICE, JobAnswer
from shared.imaging.facts import ChestScores, Flag, PixelSpacing
from shared.tables import Detection, Image, Job, Model, Study
from shared.vocabulary.states import JobState, ModelState

Box = tuple[float, float, float, float]


class ImageFacts(BaseModel):
    """What is known of an image's pixels."""

    height_px: int
    width_px: int
    #: None where the header says nothing that can be believed, of a PNG or JPEG, and until the image is prepared.
    pixel_spacing: PixelSpacing | None
    #: What makes the image doubtful, how stored values became brightness, and what the classifier of whole films says;
    #: None until it is prepared.
    flags: list[Flag] | None
    grey_levels: list[str] | None
    chest_scores: ChestScores | None
    rendition_version: int | None


class ImageAnswer(ImageFacts):
    """One image of a study, with its jobs, oldest first."""

    id: UUID
    media_type: str
    byte_count: int
    sha256: str
    #: Whether the pixels show text, such as a name, as the header says; None where it says nothing.
    burned_in_annotation: bool | None
    created_at: datetime
    jobs: list[JobAnswer]

    @classmethod
    def of(cls, image: Image, jobs: list[Job]) -> "ImageAnswer":
        """Describe an image's row."""
        return cls(
            **_facts(image),
            id=image.id,
            media_type=image.media_type,
            byte_count=image.byte_count,
            sha256=image.sha256,
            burned_in_annotation=image.burned_in_annotation,
            created_at=image.created_at,
            jobs=[JobAnswer.of(job, image) for job in jobs],
        )


class StudyAnswer(BaseModel):
    """A study and its images, oldest first."""

    id: UUID
    study_instance_uid: str | None
    created_at: datetime
    images: list[ImageAnswer]

    @classmethod
    def of(cls, study: Study, images: list[ImageAnswer]) -> "StudyAnswer":
        """Describe a study's row."""
        return cls(id=study.id, study_instance_uid=study.study_instance_uid, created_at=study.created_at, images=images)


class Finding(BaseModel):
    """One box, from the top left corner of the original image."""

    class_id: int
    class_name: str
    score: float
    #: In pixels of the original.
    box_xyxy_px: Box
    box_xyxy_mm: Box | None = Field(
        description="The same in mm, by the image's `pixel_spacing`: unless that is calibrated, at the detector, where "
        "the body's shadow is larger than the body. Null where a pixel's size is not known."
    )

    @classmethod
    def of(cls, box: Detection, spacing: PixelSpacing | None) -> "Finding":
        """Describe a detection's row on an image with this spacing."""
        box_xyxy_px = (box.x_min_px, box.y_min_px, box.x_max_px, box.y_max_px)
        return cls(
            class_id=box.class_id,
            class_name=box.class_name,
            score=box.score,
            box_xyxy_px=box_xyxy_px,
            box_xyxy_mm=spacing and box_in_mm(box_xyxy_px, spacing),
        )


class ModelReference(BaseModel):
    """The model that found something."""

    id: UUID
    name: str
    digest: str
    #: Now: `active` is the one whose results are authoritative.
    state: ModelState
    #: In words, as its card says; empty where that is not known.
    trained_on: str
    #: What a reader must know before believing its findings, in sentences, as its card says.
    warnings: list[str]

    @classmethod
    def of(cls, model: Model) -> "ModelReference":
        """Name a model's row."""
        return cls(
            id=model.id,
            name=model.name,
            digest=model.digest,
            state=ModelState(model.state),
            trained_on=model.card.get("trained_on", ""),
            warnings=model.card.get("warnings", []),
        )


class OtherResult(BaseModel):
    """What another model found on an image: never the authoritative result, unless the request named a model."""

    job_id: UUID
    model: ModelReference
    #: Of the Carina that made the result.
    code_version: str | None
    finished_at: datetime | None
    #: The highest score first.
    findings: list[Finding]

    @classmethod
    def of(cls, job: Job, model: Model, findings: list[Finding]) -> "OtherResult":
        """Describe a job that has succeeded."""
        return cls(
            job_id=job.id,
            model=ModelReference.of(model),
            code_version=job.code_version,
            finished_at=job.finished_at,
            findings=findings,
        )


class ImageFindings(ImageFacts):
    """What the active model, or the one that was asked for, found on one image; empty until its job has succeeded."""

    image_id: UUID
    #: None where the image has no job of that model.
    job_id: UUID | None
    state: JobState | None
    code: str | None
    reason: str | None
    model: ModelReference | None
    #: Of the Carina that made the result.
    code_version: str | None
    #: Whether this is the active model's result.
    is_authoritative: bool
    #: The highest score first.
    findings: list[Finding]
    #: What other models found, the one that was active last first.
    other_results: list[OtherResult]

    @classmethod
    def of(
        cls,
        image: Image,
        job: Job | None,
        model: Model | None,
        findings: list[Finding],
        other_results: list[OtherResult],
    ) -> "ImageFindings":
        """Describe an image's row, what its job has found, and what other models have."""
        return cls(
            **_facts(image),
            image_id=image.id,
            job_id=job.id if job else None,
            state=JobState(job.state) if job else None,
            code=job.code if job else None,
            reason=job.reason if job else None,
            model=ModelReference.of(model) if model else None,
            code_version=job.code_version if job else None,
            is_authoritative=(
                job is not None
                and job.state == JobState.SUCCEEDED
                and model is not None
                and model.state == ModelState.ACTIVE
            ),
            findings=findings,
            other_results=other_results,
        )


class FindingsAnswer(BaseModel):
    """What was found on a study's images."""

    study_id: UUID
    #: Whose findings are authoritative; None where no model is active.
    active_model: ModelReference | None
    images: list[ImageFindings]
    notice: str = NOTICE


class StudyErased(BaseModel):
    """A study that is gone."""

    study_id: UUID
    #: How many images it had; 0 where it was erased before.
    images: int
    #: Objects that are still to be removed, because the object store does not answer.
    objects_left: int


def spacing_of(image: Image) -> PixelSpacing | None:
    """The size of an image's pixels, where it is known."""
    if image.spacing_source is None:
        return None
    return PixelSpacing.model_validate(
        {"row_mm": image.row_spacing_mm, "column_mm": image.column_spacing_mm, "source": image.spacing_source}
    )


def _facts(image: Image) -> dict[str, Any]:
    """The fields of `ImageFacts`."""
    return {
        "height_px": image.height_px,
        "width_px": image.width_px,
        "pixel_spacing": spacing_of(image),
        "flags": image.flags,
        "grey_levels": image.grey_levels,
        "chest_scores": image.chest_scores,
        "rendition_version": image.rendition_version,
    }


def box_in_mm(box_xyxy_px: Box, spacing: PixelSpacing) -> Box:
    """The same box in mm of the spacing, from the same corner."""
    x_min, y_min, x_max, y_max = box_xyxy_px
    across, down = spacing.column_mm, spacing.row_mm
    return x_min * across, y_min * down, x_max * across, y_max * down
