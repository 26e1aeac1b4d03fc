"""What decoding an image has shown beside its pixels: its scale, its grey-level chain, and what makes it doubtful."""

from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field

from shared.vocabulary.flags import Flag


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
