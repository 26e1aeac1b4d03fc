"""Studies and their images."""

from datetime import datetime
from uuid import UUID

from pydantic import BaseModel, Field

from api.contract.jobs import JobAnswer
from shared.bounded import Bounded
from shared.imaging.facts import ChestScores, PixelSpacing
from shared.vocabulary.flags import Flag


class StudyPath(Bounded):
    """Identifies a study."""

    study_id: UUID


class ImagePath(Bounded):
    """Identifies an image."""

    image_id: UUID


class RerunQuery(Bounded):
    """The priority of the new jobs."""

    priority: int = Field(5, ge=0, le=9, description="Jobs of higher priority are processed first.")


class ImageFacts(BaseModel):
    """The properties of an image's pixels."""

    height_px: int
    width_px: int
    #: None if the header has no reliable value, for a PNG or JPEG, and until the image is prepared.
    pixel_spacing: PixelSpacing | None
    #: Reasons to doubt the image, the steps from stored values to brightness, and the scores of the image classifier;
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
    #: Whether the header says that the pixels show text, such as a name; None if it does not state this.
    burned_in_annotation: bool | None
    created_at: datetime
    jobs: list[JobAnswer]


class StudyAnswer(BaseModel):
    """A study and its images, oldest first."""

    id: UUID
    study_instance_uid: str | None
    created_at: datetime
    images: list[ImageAnswer]


class StudyErased(BaseModel):
    """An erased study."""

    study_id: UUID
    #: Number of its images; 0 if it was erased before.
    images: int
    #: Objects that must still be deleted, because the object store does not answer.
    objects_left: int
