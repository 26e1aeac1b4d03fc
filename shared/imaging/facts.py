"""What decoding an image has shown beside its pixels: its scale, its grey-level chain, and what makes it doubtful."""

from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field


class Flag(StrEnum):
    """Why an image may be unfit for a detector of frontal chest radiographs, or misread. Stable; part of the API."""

    #: By its tags it was made by another modality than CR or DX and their like.
    NOT_A_RADIOGRAPH = "not_a_radiograph"
    #: By its tags or its pixels it shows another part of the body, or nothing that looks like a chest.
    NOT_A_CHEST = "not_a_chest"
    #: By its tags it was taken from the side.
    LATERAL_VIEW = "lateral_view"
    #: By its pixels the chest lies on its side or upside down.
    ROTATED = "rotated"
    #: Dark and bright look swapped, as after a wrong photometric interpretation. Shown as tagged all the same.
    SUSPECTED_INVERSION = "suspected_inversion"
    #: Nothing was exposed: next to no contrast.
    EMPTY_EXPOSURE = "empty_exposure"
    #: Much of the picture sits at the lowest or the highest value, where findings are lost.
    CLIPPED_EXPOSURE = "clipped_exposure"
    #: So few pixels that small findings cannot be made out.
    LOW_RESOLUTION = "low_resolution"
    #: The file breaks the DICOM standard and was read in the one way that makes sense; `grey_levels` say how.
    IRREGULAR_FILE = "irregular_file"


class SpacingSource(StrEnum):
    """Where a pixel's size was measured, PS3.3 section 10.7.1.3."""

    #: At the patient: calibrated by a fiducial or by geometry.
    CALIBRATED = "calibrated"
    #: At the detector: what is seen is up to about a tenth smaller than it measures.
    DETECTOR = "detector"
    #: On film that was scanned.
    FILM = "film"
    #: Said without saying where.
    UNSPECIFIED = "unspecified"


class _Facts(BaseModel):
    model_config = ConfigDict(frozen=True)


class PixelSpacing(_Facts):
    """The distance between the centres of neighbouring pixels of the original, in mm."""

    row_mm: float = Field(gt=0, allow_inf_nan=False, description="From one row to the next: down.")
    column_mm: float = Field(gt=0, allow_inf_nan=False, description="From one column to the next: across.")
    source: SpacingSource


class ChestScores(_Facts):
    """What a classifier of whole films says of one."""

    #: Of its weights: the first 12 hexadecimal digits of their SHA-256.
    classifier: str
    #: Probabilities by class; their sum is 1.
    scores: dict[str, float]


class ImageFacts(_Facts):
    """What decoding has shown. Every field is part of the API."""

    spacing: PixelSpacing | None = None
    #: The chain from stored values to brightness as it was applied, in words, as `window 1 of 2: 2048, 4096 (LINEAR)`.
    grey_levels: list[str] = []
    flags: list[Flag] = []
    chest_scores: ChestScores | None = None
