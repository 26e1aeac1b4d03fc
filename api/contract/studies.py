"""Studies and their images."""

from datetime import datetime
from uuid import UUID

from pydantic import BaseModel, Field

from api.contract.jobs import JobAnswer
from shared.bounded import Bounded
from shared.imaging.facts import ChestScores, PixelSpacing
from shared.vocabulary.flags import Flag


class StudyPath(Bounded):
    """Which study."""

    study_id: UUID


class ImagePath(Bounded):
    """Which image."""

    image_id: UUID


class RerunQuery(Bounded):
    """How urgent it is."""

    priority: int = Field(5, ge=0, le=9, description="A higher one goes first.")


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


class StudyAnswer(BaseModel):
    """A study and its images, oldest first."""

    id: UUID
    study_instance_uid: str | None
    created_at: datetime
    images: list[ImageAnswer]


class StudyErased(BaseModel):
    """A study that is gone."""

    study_id: UUID
    #: How many images it had; 0 where it was erased before.
    images: int
    #: Objects that are still to be removed, because the object store does not answer.
    objects_left: int
