"""The card of a chest classifier."""

from pydantic import BaseModel, ConfigDict, Field

#: In the order of the classifier's outputs.
FRONTAL, ROTATED, INVERTED, OTHER = CLASSES = ("frontal_chest", "rotated_chest", "inverted_chest", "other")


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Thresholds(_Part):
    """The minimum probability at which a class raises a flag; chosen on validation images, never on test images."""

    rotated_chest: float = Field(gt=0.5, le=1)
    inverted_chest: float = Field(gt=0.5, le=1)
    other: float = Field(gt=0.5, le=1)


class Rate(_Part):
    """How often a flag was raised for images of one kind."""

    flagged: int = Field(ge=0)
    of: int = Field(ge=1)
    #: The 95% Wilson interval of the share.
    low: float
    high: float


class Tested(_Part):
    """The result of a test of the shipped thresholds on images of one kind that were not used to choose anything."""

    #: By flag. Images without a flag are not counted under any flag.
    rates: dict[str, Rate]


class ChestClassifierCard(_Part):
    """The description of a classifier, without its weights."""

    name: str = Field(min_length=1, max_length=200)
    classes: tuple[str, ...] = CLASSES
    #: The rendition is reduced to a square of this side length, and normalised to mean 0 and standard deviation 1.
    side_px: int = Field(ge=32, le=256, multiple_of=16)
    thresholds: Thresholds
    weights_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    rendition_version: int = Field(ge=1)
    #: Number of images of each kind that the classifier was trained on, and that its thresholds were chosen on.
    fitted_on: dict[str, int] = {}
    chosen_on: dict[str, int] = {}
    tested_on: dict[str, Tested] = {}
    trained_at: str = ""
    note: str = ""
