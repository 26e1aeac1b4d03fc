"""COCO's object detection format, read: images, categories, boxes, and what of ours a document may say besides.

Beyond COCO an image may have `patient` (or `patient_id`), `split` and `readers`, and an annotation `readers`, as the
documents that Carina exports do. Anything else is left behind, segmentations too.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping
from typing import Annotated

from pydantic import AfterValidator, AliasChoices, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from shared.detector.card import Category
from shared.training import Split
from trainer.datasets.annotations import (
    FAR_CORNER,
    AnnotatedImage,
    Annotations,
    Box,
    MalformedAnnotations,
    Xyxy,
    pseudonym,
    to_xyxy,
)

#: Left out: a box without an area, and a region that COCO's `iscrowd` marks as not to be told apart.
WITHOUT_AREA, CROWD = "box_without_area", "crowd_region"


def _is_finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError("must be finite")
    return value


_Number = Annotated[float, AfterValidator(_is_finite)]
_Word = Annotated[str, StringConstraints(min_length=1)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class _Image(_Part):
    id: int
    file_name: Annotated[str, StringConstraints(min_length=1)]
    height: int | None = Field(None, gt=0)
    width: int | None = Field(None, gt=0)
    patient: str | int | None = Field(None, validation_alias=AliasChoices("patient", "patient_id"))
    split: Split | None = None
    readers: tuple[_Word, ...] = ()


class _Annotation(_Part):
    id: int
    image_id: int
    category_id: int
    bbox: tuple[_Number, _Number, _Number, _Number]
    far_corner: tuple[_Number, _Number] | None = None
    iscrowd: int = 0
    readers: tuple[_Word, ...] = ()


class _Document(_Part):
    images: tuple[_Image, ...]
    annotations: tuple[_Annotation, ...]
    categories: tuple[Category, ...]


def read_coco(data: bytes) -> Annotations:
    """Read a document's bytes; raises `MalformedAnnotations`.

    Boxes without an area are left out and noted. Those that leave the image are cut later, at the file's own size.
    """
    try:
        document = _Document.model_validate_json(data)
    except ValidationError as exc:
        first = exc.errors(include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "document"
        raise MalformedAnnotations(f"{where}: {first['msg']} (the first of {exc.error_count()} errors).") from exc
    _check_references(document)
    noted: Counter[str] = Counter()
    boxes: defaultdict[int, list[Box]] = defaultdict(list)
    for annotation in document.annotations:
        _, _, width, height = annotation.bbox
        if width <= 0 or height <= 0:
            noted[WITHOUT_AREA] += 1
        elif annotation.iscrowd:
            noted[CROWD] += 1
        else:
            readers = tuple(sorted(set(annotation.readers)))
            boxes[annotation.image_id].append(Box(annotation.category_id, _corners(annotation), readers))
    return Annotations(
        categories=tuple(sorted(document.categories, key=lambda category: category.id)),
        images=tuple(_describe(image, boxes[image.id]) for image in document.images),
        noted=dict(noted),
    )


def join(documents: Mapping[Split, Annotations]) -> Annotations:
    """Make one of several, each of which is a split; raises `MalformedAnnotations` where they do not fit together."""
    categories = {split: annotations.categories for split, annotations in documents.items()}
    if len(set(categories.values())) > 1:
        raise MalformedAnnotations(f"The documents of {' and '.join(categories)} have different categories.")
    images = [
        AnnotatedImage(**(vars(image) | {"split": split}))
        for split, annotations in documents.items()
        for image in annotations.images
    ]
    _check_distinct("file_name of an image (also across documents)", (image.file_name for image in images))
    noted = sum((Counter(annotations.noted) for annotations in documents.values()), Counter[str]())
    return Annotations(next(iter(categories.values())), tuple(images), dict(noted))


def _corners(annotation: _Annotation) -> Xyxy:
    left, top, right, bottom = to_xyxy(annotation.bbox)
    if annotation.far_corner is None:
        return left, top, right, bottom
    if not all(map(math.isclose, annotation.far_corner, (right, bottom))):
        raise MalformedAnnotations(f"Annotation {annotation.id} has a bbox and a {FAR_CORNER} that are not the same.")
    return left, top, *annotation.far_corner


def _describe(image: _Image, boxes: list[Box]) -> AnnotatedImage:
    readers = {*image.readers, *(reader for box in boxes for reader in box.readers)}
    return AnnotatedImage(
        file_name=image.file_name,
        boxes=tuple(boxes),
        readers=tuple(sorted(readers)),
        patient=None if image.patient in (None, "") else pseudonym(str(image.patient)),
        split=image.split,
        height_px=image.height,
        width_px=image.width,
    )


def _check_references(document: _Document) -> None:
    image_ids = _check_distinct("id of an image", (image.id for image in document.images))
    category_ids = _check_distinct("id of a category", (category.id for category in document.categories))
    _check_distinct("name of a category", (category.name for category in document.categories))
    _check_distinct("id of an annotation", (annotation.id for annotation in document.annotations))
    _check_distinct("file_name of an image", (image.file_name for image in document.images))
    for annotation in document.annotations:
        if annotation.image_id not in image_ids:
            raise MalformedAnnotations(f"Annotation {annotation.id} is on image {annotation.image_id}: there is none.")
        if annotation.category_id not in category_ids:
            raise MalformedAnnotations(
                f"Annotation {annotation.id} is of category {annotation.category_id}: there is none."
            )


def _check_distinct(what: str, values: Iterable[Hashable]) -> set[Hashable]:
    seen: set[Hashable] = set()
    for value in values:
        if value in seen:
            raise MalformedAnnotations(f"Every {what} must be unique; one comes twice.")
        seen.add(value)
    return seen
