"""The model card: everything needed to build a model, to run it and to explain each of its results."""

import hashlib
import json
import math
from collections.abc import Sequence
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    field_validator,
    model_validator,
)

from shared.bounded import is_odd
from shared.detector.architectures import ARCHITECTURES, Architecture

#: A trial on 106 films gave the best AP@0.4 with this, but with a wide interval: choose it by cross-validation.
DEFAULT_ABNORMALITY_EXPONENT = 0.25


def _one_line(text: str) -> str:
    if is_odd(text):
        raise ValueError("a warning is one line of text, without control characters")
    return text


class Category(BaseModel):
    """A class, in the form of COCO's `categories`: ids can have gaps and be in any order."""

    model_config = ConfigDict(frozen=True)

    id: int
    name: str = Field(min_length=1)


ModelWarning = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=300), AfterValidator(_one_line)
]


class ModelCard(BaseModel):
    """A model without its weights; cards with the same digest give the same results on the same rendition."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, max_length=200)
    architecture: Architecture
    #: In the order of the model's outputs; see `category_of`.
    categories: tuple[Category, ...] = Field(min_length=1)

    #: The side length of the square canvas that every rendition is fitted onto.
    canvas_px: int = Field(ge=64, le=4096, multiple_of=32)
    image_mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    image_std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    #: One tuple of sizes per level of the feature pyramid, finest first, in canvas pixels.
    anchor_sizes_px: tuple[tuple[float, ...], ...] = Field(min_length=1)
    #: Height over width, on every level.
    anchor_aspect_ratios: tuple[float, ...] = Field((0.5, 1.0, 2.0), min_length=1)
    #: Added to the running variance of batch norm. torchvision's COCO checkpoints were trained with 0.
    batch_norm_eps: float = Field(1e-5, ge=0, le=1e-2)

    #: Whether classes of a place are scored independently (sigmoid), instead of against each other (softmax). RetinaNet
    #: always does so: there it only says how it was trained.
    multi_label: bool = False
    score_threshold: float = Field(0.05, ge=0, le=1)
    nms_iou: float = Field(0.5, gt=0, le=1)
    max_detections: int = Field(100, ge=1, le=1000)

    #: The abnormality head's effect on box scores: they are multiplied by p to this power, where p is the probability
    #: that the image shows any finding. None: the network has no such head.
    abnormality_exponent: float | None = Field(None, ge=0, le=4)

    #: The version of the rendition code that made the training images.
    rendition_version: int = Field(ge=1)
    weights_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    trained_on: str = ""
    metrics: dict[str, int | float | str | dict[str, float | None] | None] = Field(default_factory=dict)
    code_version: str = ""
    #: Sentences that a reader must know before using the findings; they are shown with the model's findings.
    warnings: tuple[ModelWarning, ...] = Field((), max_length=10)

    @field_validator("categories")
    @classmethod
    def _categories_are_distinct(cls, categories: tuple[Category, ...]) -> tuple[Category, ...]:
        for field in ("id", "name"):
            if len({getattr(category, field) for category in categories}) < len(categories):
                raise ValueError(f"two categories have the same {field}")
        return categories

    @field_validator("image_mean", "image_std")
    @classmethod
    def _normalisation_is_finite(cls, values: tuple[float, float, float]) -> tuple[float, float, float]:
        if not all(map(math.isfinite, values)):
            raise ValueError("the mean and the standard deviation must be finite")
        return values

    @model_validator(mode="after")
    def _numbers_make_a_network(self) -> Self:
        if min(self.image_std) <= 0:
            raise ValueError("image_std must be positive")
        check_anchors(self.architecture, self.anchor_sizes_px, self.anchor_aspect_ratios)
        return self

    def with_warnings(self, warnings: Sequence[str]) -> Self:
        """Return the card with these warnings instead of its own; raises pydantic's `ValidationError`."""
        return type(self).model_validate({**self.model_dump(), "warnings": tuple(warnings)})

    @property
    def digest(self) -> str:
        """SHA-256 of the card as canonical JSON; it covers the weights through their own digest.

        Warnings are excluded: they change no results, and can be changed without creating a new model. A network
        without an abnormality head, or whose classes exclude each other, has the same digest as before there were
        others.
        """
        left_out = {"warnings"} | ({"abnormality_exponent"} if self.abnormality_exponent is None else set())
        left_out |= set() if self.multi_label else {"multi_label"}
        return hashlib.sha256(_canonical(self.model_dump(mode="json", exclude=left_out)).encode()).hexdigest()

    # Only these two methods know the numbering of the model's outputs: 0 is background, label k is `categories[k - 1]`.

    def category_of(self, label: int) -> Category:
        """Return the category of the model's output `label` (1 to N)."""
        if not 1 <= label <= len(self.categories):
            raise ValueError(f"label {label} is not one of 1 to {len(self.categories)}")
        return self.categories[label - 1]

    def label_of(self, category_id: int) -> int:
        """Return the output (1 to N) of a category; the inverse of `category_of`."""
        for label, category in enumerate(self.categories, start=1):
            if category.id == category_id:
                return label
        raise ValueError(f"the model has no category {category_id}")


def check_anchors(
    architecture: Architecture, sizes_px: Sequence[Sequence[float]] | None, aspect_ratios: Sequence[float]
) -> None:
    """Raise `ValueError` for anchors that do not fit the architecture; None means its default sizes."""
    if not all(0 < ratio < math.inf for ratio in aspect_ratios):
        raise ValueError("anchor_aspect_ratios must be positive numbers")
    if sizes_px is None:
        return
    levels = ARCHITECTURES[architecture].pyramid_levels
    if len(sizes_px) != levels:
        raise ValueError(f"anchor_sizes_px has {len(sizes_px)} levels, but {architecture} has {levels}")
    if len({len(sizes) for sizes in sizes_px}) > 1 or not sizes_px[0]:
        raise ValueError("anchor_sizes_px needs the same number of sizes, at least one, on every level")
    if not all(0 < size < math.inf for sizes in sizes_px for size in sizes):
        raise ValueError("anchor_sizes_px must be positive numbers")


def _canonical(card: dict[str, Any]) -> str:
    return json.dumps(card, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
