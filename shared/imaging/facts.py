"""The facts that decoding an image yields besides its pixels: pixel spacing, grey-level chain, flags and scores."""

from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field

from shared.vocabulary.flags import Flag


class SpacingSource(StrEnum):
    """The place where the pixel size was measured (PS3.3 section 10.7.1.3)."""

    #: In the patient: calibrated with a fiducial or by geometry.
    CALIBRATED = "calibrated"
    #: On the detector: an object is up to about 10% smaller than it measures.
    DETECTOR = "detector"
    #: On film that was scanned.
    FILM = "film"
    #: The header does not state the place.
    UNSPECIFIED = "unspecified"


class _Facts(BaseModel):
    model_config = ConfigDict(frozen=True)


class PixelSpacing(_Facts):
    """The distance between the centres of neighbouring pixels of the original, in mm."""

    row_mm: float = Field(gt=0, allow_inf_nan=False, description="From one row to the next: down.")
    column_mm: float = Field(gt=0, allow_inf_nan=False, description="From one column to the next: across.")
    source: SpacingSource


class ChestScores(_Facts):
    """The result of the chest classifier for one image."""

    #: The first 12 hexadecimal digits of the SHA-256 of the classifier's weights.
    classifier: str
    #: Probabilities by class; they add up to 1.
    scores: dict[str, float]


class ImageFacts(_Facts):
    """The facts that decoding an image yields. Every field is part of the API."""

    spacing: PixelSpacing | None = None
    #: The applied steps from stored values to brightness, in words, such as `window 1 of 2: 2048, 4096 (LINEAR)`.
    grey_levels: list[str] = []
    flags: list[Flag] = []
    chest_scores: ChestScores | None = None
