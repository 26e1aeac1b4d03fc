"""Studies and their images."""

from datetime import datetime
from uuid import UUID

from pydantic import BaseModel, Field

from api.contract.jobs import JobAnswer
from shared.bounded import Bounded
from shared.imaging.facts import ChestScores, PixelSpacing
from shared.vocabulary.flags import Flag
from shared.vocabulary.states import ModelState


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


class ModelLearnt(BaseModel):
    """A model that has learnt from erased images."""

    id: UUID
    name: str
    state: ModelState


class PatientRequest(Bounded):
    """A patient whose studies are erased."""

    patient_id: str = Field(min_length=1, max_length=64, description="The PatientID in the DICOM files.")


class StudyErased(BaseModel):
    """An erased study."""

    study_id: UUID
    #: Number of its images; 0 if it was erased before.
    images: int
    #: Objects that must still be deleted, because the object store does not answer.
    objects_left: int
    #: Models that were trained on datasets with these images, or from such models. They are kept.
    learnt: list[ModelLearnt] = Field(default_factory=list)


class PatientErased(BaseModel):
    """The erased studies of a patient; none if the patient is unknown."""

    studies: list[StudyErased]
