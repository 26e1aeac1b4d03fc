"""Annotations as every format says them: who read which image, and who drew which box."""

import hashlib
import re
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from shared.detector.card import Category
from shared.errors import PermanentError
from shared.training.config import Split

Xyxy = tuple[float, float, float, float]

#: Of an annotation in our documents: x and y that `bbox` leads to but for rounding.
FAR_CORNER = "far_corner"

#: What the pseudonym of a study begins with.
STUDY = "study-"

_PSEUDONYM = re.compile(r"(patient|study)-[0-9a-f]{32}")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


class MalformedAnnotations(PermanentError):
    """The annotations cannot be read."""

    code = "malformed_annotations"


class ImplausibleBoxes(MalformedAnnotations):
    """The boxes are not in pixels of these images. Check their units."""

    code = "implausible_boxes"


@dataclass(frozen=True)
class Box:
    """A finding on an image."""

    category_id: int
    #: In pixels of the original.
    xyxy_px: Xyxy
    #: Who drew it, in alphabetical order; empty where that is not known.
    readers: tuple[str, ...]
    #: Where the annotations have it, as `line 12`; for notes and errors.
    origin: str = field(default="", compare=False)


@dataclass(frozen=True)
class AnnotatedImage:
    """An image and what was found on it."""

    #: As the annotations have it: a file's name, or a name without its ending.
    file_name: str
    boxes: tuple[Box, ...]
    #: Who read it, whether they found something or not, in alphabetical order; empty where that is not known.
    readers: tuple[str, ...] = ()
    #: A pseudonym; None where the patient is not known.
    patient: str | None = None
    #: What stands for the patient where nobody knows them; see `study_pseudonym`.
    study: str | None = None
    split: Split | None = None
    #: Of the image that the boxes were drawn on, as the annotations have it; None where they do not say.
    height_px: int | None = None
    width_px: int | None = None
    #: Whether the boxes are scaled to a file of another size; else such a file is refused.
    scales: bool = False
    #: Where the annotations have it, as `line 12`; for notes and errors.
    origin: str = field(default="", compare=False)


@dataclass(frozen=True)
class Annotations:
    """What was found on a set of images, no two of one name."""

    categories: tuple[Category, ...]
    images: tuple[AnnotatedImage, ...]
    #: How many boxes, rows or images were left out or changed, by code; `notes.MESSAGES` explains the codes.
    noted: dict[str, int]
    #: Where they come from, for the document's `info`; empty where the source says all.
    provenance: dict[str, Any] = field(default_factory=dict)
    #: Of the noted ones the first three, by code.
    culprits: dict[str, tuple[str, ...]] = field(default_factory=dict, compare=False)


def pseudonym(patient_id: str) -> str:
    """Return what stands for a patient, the same in every dataset; a pseudonym stands for itself.

    It keeps identifiers out of documents and logs. It is no protection from somebody who can guess identifiers and try
    them: nothing about it is secret.
    """
    if _PSEUDONYM.fullmatch(patient_id):
        return patient_id
    return "patient-" + hashlib.sha256(f"carina-patient:{patient_id}".encode()).hexdigest()[:32]


def study_pseudonym(study_id: UUID) -> str:
    """Return what stands for the patient of a study where nothing says who that is."""
    return STUDY + hashlib.sha256(f"carina-study:{study_id}".encode()).hexdigest()[:32]


def is_printable(name: str) -> bool:
    """Whether a name has no control characters: neither a database nor a file system takes all of them."""
    return not _CONTROL.search(name)


def to_xywh(box: Xyxy) -> Xyxy:
    """Return COCO's x, y, width, height of a box's corners."""
    left, top, right, bottom = box
    return left, top, right - left, bottom - top


def to_xyxy(bbox: Xyxy) -> Xyxy:
    """Return the corners of COCO's x, y, width, height; of whole numbers the very same, else to a rounding."""
    left, top, width, height = bbox
    return left, top, left + width, top + height
