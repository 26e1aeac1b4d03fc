"""What a classifier of whole films says about itself."""

from pydantic import BaseModel, ConfigDict, Field

#: In the order of the classifier's outputs.
FRONTAL, ROTATED, INVERTED, OTHER = CLASSES = ("frontal_chest", "rotated_chest", "inverted_chest", "other")


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Thresholds(_Part):
    """The probability from which a class becomes a flag; chosen on validation films, never on those of the test."""

    rotated_chest: float = Field(gt=0.5, le=1)
    inverted_chest: float = Field(gt=0.5, le=1)
    other: float = Field(gt=0.5, le=1)


class Rate(_Part):
    """How often a flag was raised among pictures of one kind."""

    flagged: int = Field(ge=0)
    of: int = Field(ge=1)
    #: A 95% Wilson interval of the share.
    low: float
    high: float


class Tested(_Part):
    """What the shipped thresholds do to pictures of one kind that nothing was chosen on."""

    #: By flag; pictures of which no flag was raised are in none.
    rates: dict[str, Rate]


class ChestClassifierCard(_Part):
    """A classifier without its weights."""

    name: str = Field(min_length=1, max_length=200)
    classes: tuple[str, ...] = CLASSES
    #: The rendition is shrunk to a square of this side, and brought to a mean of 0 and a deviation of 1.
    side_px: int = Field(ge=32, le=256, multiple_of=16)
    thresholds: Thresholds
    weights_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    rendition_version: int = Field(ge=1)
    #: How many pictures of each kind it was fitted on, and how many its thresholds were chosen on.
    fitted_on: dict[str, int] = {}
    chosen_on: dict[str, int] = {}
    tested_on: dict[str, Tested] = {}
    trained_at: str = ""
    note: str = ""
