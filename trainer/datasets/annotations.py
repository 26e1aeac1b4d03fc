"""Annotations in one form for all formats: which reader read each image and drew each box."""

import hashlib
import re
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from shared.detector.card import Category
from shared.errors import PermanentError
from shared.training.config import Split

Xyxy = tuple[float, float, float, float]

#: A field of an annotation in Carina's documents: the exact right and bottom edge, if `bbox` gives them only rounded.
FAR_CORNER = "far_corner"

#: A field of an annotation in Carina's documents: `Box.probability`.
PROBABILITY = "probability"

#: Prefix of the pseudonym of a study.
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
    """A finding in an image."""

    category_id: int
    #: In pixels of the original.
    xyxy_px: Xyxy
    #: The readers who drew it, in alphabetical order; empty if unknown.
    readers: tuple[str, ...]
    #: Its position in the annotations, such as `line 12`; for notes and errors.
    origin: str = field(default="", compare=False)
    #: The probability that it is a true finding, by the model of the readers; None if unknown.
    probability: float | None = None


@dataclass(frozen=True)
class AnnotatedImage:
    """An image and its findings."""

    #: As in the annotations: a file name, with or without its suffix.
    file_name: str
    boxes: tuple[Box, ...]
    #: The readers who read the image, with or without a finding, in alphabetical order; empty if unknown.
    readers: tuple[str, ...] = ()
    #: A pseudonym; None if the patient is unknown.
    patient: str | None = None
    #: Used as the patient if the patient is unknown; see `study_pseudonym`.
    study: str | None = None
    split: Split | None = None
    #: Size of the image that the boxes were drawn on, as in the annotations; None if they do not state it.
    height_px: int | None = None
    width_px: int | None = None
    #: Whether boxes are shares of the width and height of the image, instead of pixels.
    in_shares: bool = False
    #: Whether boxes are scaled to a file of another size; otherwise such a file is rejected.
    scales: bool = False
    #: Its position in the annotations, such as `line 12`; for notes and errors.
    origin: str = field(default="", compare=False)


@dataclass(frozen=True)
class Annotations:
    """The findings of a set of images with distinct names."""

    categories: tuple[Category, ...]
    images: tuple[AnnotatedImage, ...]
    #: Number of boxes, rows or images that were left out or changed, by code; `notes.MESSAGES` explains the codes.
    noted: dict[str, int]
    #: Their origin, for the document's `info`; empty if the source states it completely.
    provenance: dict[str, Any] = field(default_factory=dict)
    #: The first three of the noted entries, by code.
    culprits: dict[str, tuple[str, ...]] = field(default_factory=dict, compare=False)


def pseudonym(patient_id: str) -> str:
    """Return the pseudonym of a patient, the same in all datasets. A pseudonym is returned unchanged.

    It keeps identifiers out of documents and logs. It does not protect against someone who can guess identifiers and
    test them, because it uses no secret.
    """
    if _PSEUDONYM.fullmatch(patient_id):
        return patient_id
    return "patient-" + hashlib.sha256(f"carina-patient:{patient_id}".encode()).hexdigest()[:32]


def study_pseudonym(study_id: UUID) -> str:
    """Return the pseudonym of a study, used as the patient if the patient is unknown."""
    return STUDY + hashlib.sha256(f"carina-study:{study_id}".encode()).hexdigest()[:32]


def is_printable(name: str) -> bool:
    """Return whether a name has no control characters; some databases and file systems reject them."""
    return not _CONTROL.search(name)


def to_xywh(box: Xyxy) -> Xyxy:
    """Return COCO's x, y, width, height of a box given by its corners."""
    left, top, right, bottom = box
    return left, top, right - left, bottom - top


def to_xyxy(bbox: Xyxy) -> Xyxy:
    """Return the corners of COCO's x, y, width, height: exact for whole numbers, otherwise rounded."""
    left, top, width, height = bbox
    return left, top, left + width, top + height
