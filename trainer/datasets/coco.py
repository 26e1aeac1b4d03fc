"""Reads COCO's object detection format: images, categories and boxes, with the optional fields of Carina.

In addition to COCO, an image can have `patient` (or `patient_id`), `split` and `readers`, and an annotation `readers`
and `probability`, as in the documents that Carina exports. All other fields are ignored; an outline (`segmentation`) is
only used to compute a box if there is no `bbox`.
"""

import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import replace
from typing import Annotated, Any, TypeVar

import pydantic_core
from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
)

from shared.detector.card import Category
from shared.training.config import Split
from trainer.datasets.annotations import (
    FAR_CORNER,
    AnnotatedImage,
    Annotations,
    Box,
    MalformedAnnotations,
    Xyxy,
    is_printable,
    pseudonym,
    to_xyxy,
)
from trainer.datasets.class_names import is_normal, key_of
from trainer.datasets.notes import Notes, Reasons
from trainer.datasets.splits import SPLIT_OF
from trainer.datasets.text import read_text

#: Left out: a box without an area, and a crowd region (`iscrowd`), whose objects COCO does not separate.
WITHOUT_AREA, CROWD = "box_without_area", "crowd_region"
_UNREADABLE, _IMAGE_UNREADABLE = "annotation_unreadable", "image_unreadable"

#: Maximum difference between `area` and the area of `bbox`.
_AREA_TOLERANCE = 0.05
_AREA_TOLERANCE_PX2 = 1.0


def _is_finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError("must be finite")
    return value


def _is_printable(value: str) -> str:
    if not is_printable(value):
        raise ValueError("must not have control characters")
    return value


def _known(value: Any) -> Any:
    """Return None for an empty text and for NaN, which tools write for unknown values."""
    return None if value == "" or value != value else value


def _known_number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


_Number = Annotated[float, AfterValidator(_is_finite)]
_Word = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200), AfterValidator(_is_printable)
]
_FileName = Annotated[str, StringConstraints(min_length=1, max_length=1000), AfterValidator(_is_printable)]
#: An entry that is not an object counts as one without fields, so that only this entry is rejected.
_Entry = Annotated[dict[str, Any], BeforeValidator(lambda entry: entry if isinstance(entry, dict) else {})]
_Readers = Annotated[tuple[_Word, ...], BeforeValidator(lambda readers: () if readers is None else readers)]
#: Ids of images and annotations only identify them; some tools write them as text.
_Id = int | str


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class _Category(_Part):
    id: int = Field(ge=-(2**31), lt=2**31)
    name: _Word


class _Image(_Part):
    id: _Id
    file_name: _FileName
    height: int | None = Field(None, gt=0)
    width: int | None = Field(None, gt=0)
    patient: Annotated[_FileName | int | None, BeforeValidator(_known)] = Field(
        None, validation_alias=AliasChoices("patient", "patient_id")
    )
    split: Any = None
    readers: _Readers = ()


class _Annotation(_Part):
    id: _Id | None = None
    image_id: _Id
    category_id: int
    bbox: tuple[_Number, _Number, _Number, _Number]
    far_corner: tuple[_Number, _Number] | None = None
    area: Annotated[float | None, BeforeValidator(_known_number)] = None
    segmentation: Any = None
    iscrowd: int | None = 0
    readers: _Readers = ()
    probability: Annotated[float | None, BeforeValidator(_known_number)] = Field(None, ge=0, le=1)


class _Document(_Part):
    images: tuple[_Entry, ...]
    annotations: tuple[_Entry, ...]
    categories: tuple[_Category, ...] = ()


def read_coco(data: bytes) -> Annotations:
    """Read the bytes of a document, plain or compressed. Raises `MalformedAnnotations`.

    Unusable images and annotations are left out and noted. If more than half of the annotations are unusable, the
    document is rejected with the first reason. Boxes that extend beyond the image are cut later, at the size of the
    file.
    """
    document, notes, reasons = _parse(data), Notes(), Reasons()
    categories = _categories(document)
    images = _images(document, notes, reasons)
    boxes = _boxes(document, images, categories, notes, reasons)
    reasons.refuse(len(document.annotations))
    kept = (category for category in categories.values() if not is_normal(category.name))
    return notes.onto(
        Annotations(
            categories=tuple(sorted(kept, key=lambda category: category.id)),
            images=tuple(_describe(image, boxes[key], notes) for key, image in images.items()),
            noted={},
        )
    )


def join(documents: Mapping[Split, Annotations]) -> Annotations:
    """Join documents, one for each split, into one. Raises `MalformedAnnotations` if they are inconsistent."""
    _check_same_categories(documents)
    images = [replace(image, split=split) for split, annotations in documents.items() for image in annotations.images]
    _check_distinct("file_name of an image (also across documents)", (image.file_name for image in images))
    notes = Notes()
    for split, annotations in documents.items():
        for code, count in annotations.noted.items():
            named = annotations.culprits.get(code, ())
            for culprit in named:
                notes.add(code, f"{culprit} of {split}")
            notes.add(code, count=count - len(named))
    return notes.onto(Annotations(next(iter(documents.values())).categories, tuple(images), {}))


def _parse(data: bytes) -> _Document:
    try:
        content = pydantic_core.from_json(read_text(data))
    except ValueError as exc:
        raise MalformedAnnotations(f"document: Invalid JSON: {exc}.") from exc
    try:
        return _Document.model_validate(content)
    except ValidationError as exc:
        raise MalformedAnnotations(f"{_explain(exc)} (the first of {exc.error_count()} errors).") from exc


def _explain(exc: ValidationError) -> str:
    first = exc.errors(include_input=False, include_url=False)[0]
    place = ".".join(f"{part}" for part in first["loc"] if "[" not in f"{part}")  # without the names of internal types
    return f"{place or 'document'}: {first['msg'].removeprefix('Value error, ')}"


def _categories(document: _Document) -> dict[int, Category]:
    _check_distinct("id of a category", (category.id for category in document.categories))
    _check_distinct("name of a category", (key_of(category.name) for category in document.categories))
    return {category.id: Category(id=category.id, name=category.name) for category in document.categories}


def _images(document: _Document, notes: Notes, reasons: Reasons) -> dict[str, _Image]:
    """Return the usable images by id, as text."""
    images = []
    for number, content in enumerate(document.images):
        image = _validated(_Image, content, f"Image {_name(content, number)}", reasons, counts=False)
        if image is None:
            notes.add(_IMAGE_UNREADABLE, f"image {_name(content, number)}")
        else:
            images.append(image)
    _check_distinct("id of an image", (str(image.id) for image in images))
    _check_distinct("file_name of an image", (image.file_name for image in images))
    if document.images and not images:
        raise MalformedAnnotations(f"{reasons.first} Not one of the images can be used; correct the document.")
    return {str(image.id): image for image in images}


def _boxes(
    document: _Document,
    images: Mapping[str, _Image],
    categories: Mapping[int, Category],
    notes: Notes,
    reasons: Reasons,
) -> defaultdict[str, list[Box]]:
    """Return the boxes by image, and note those that are left out."""
    first_of: dict[str, dict[str, Any]] = {}
    named = [(str(content["id"]), content) for content in document.annotations if content.get("id") is not None]
    contradicted = {id_ for id_, content in named if first_of.setdefault(id_, content) != content}
    boxes: defaultdict[str, list[Box]] = defaultdict(list)
    for number, content in enumerate(document.annotations):
        origin = f"annotation {_name(content, number)}"
        annotation = _validated(_Annotation, _with_box(content), origin.capitalize(), reasons)
        if annotation is None:
            notes.add(_UNREADABLE, origin)
        elif first_of.get(str(annotation.id), content) is not content and str(annotation.id) not in contradicted:
            notes.add("row_repeated", origin)
        elif why := _contradiction(annotation, images, categories, contradicted):
            reasons.add(f"{origin.capitalize()} {why}.")
            notes.add(_UNREADABLE, origin)
        elif is_normal(categories[annotation.category_id].name):
            notes.add("box_of_no_finding", origin)
        elif annotation.bbox[2] <= 0 or annotation.bbox[3] <= 0:
            reasons.add(f"{origin.capitalize()} has a bbox without an area.")
            notes.add(WITHOUT_AREA, origin)
        elif annotation.iscrowd:
            notes.add(CROWD, origin)
        else:
            if not _is_area(annotation):
                notes.add("area_contradicts", origin)
            readers = tuple(sorted(set(annotation.readers)))
            box = Box(annotation.category_id, _corners(annotation), readers, origin, annotation.probability)
            boxes[str(annotation.image_id)].append(box)
    return boxes


_Kind = TypeVar("_Kind", bound=_Part)


def _validated(
    kind: type[_Kind], content: dict[str, Any], name: str, reasons: Reasons, *, counts: bool = True
) -> _Kind | None:
    try:
        return kind.model_validate(content)
    except ValidationError as exc:
        reasons.add(f"{name}: {_explain(exc)}.", counts=counts)
        return None


def _name(content: Mapping[str, Any], number: int) -> str:
    """Return the name of an entry: its id, otherwise its place in the list."""
    id_ = content.get("id")
    return f"{id_}" if isinstance(id_, int) else f"{id_!r:.40}" if isinstance(id_, str) else f"at place {number}"


def _contradiction(
    annotation: _Annotation, images: Mapping[str, _Image], categories: Mapping[int, Category], contradicted: set[str]
) -> str:
    if annotation.id is not None and str(annotation.id) in contradicted:
        return "has the id of another annotation"
    if str(annotation.image_id) not in images:
        return f"is on image {annotation.image_id}, which is not among the images"
    if annotation.category_id not in categories:
        return f"is of category {annotation.category_id}, which is not among the categories"
    return ""


def _with_box(content: dict[str, Any]) -> dict[str, Any]:
    """Return an annotation with a box: if it has no `bbox`, the box around the polygons of its outline."""
    outline = content.get("segmentation")
    if content.get("bbox") or not isinstance(outline, list):
        return content
    try:
        xs, ys = ([float(number) for polygon in outline for number in polygon[start::2]] for start in (0, 1))
        return content | {"bbox": [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]}
    except (TypeError, ValueError, OverflowError):
        return content


def _is_area(annotation: _Annotation) -> bool:
    """Return whether `area` can be the area of the box; the area of an outline is smaller."""
    if annotation.segmentation or annotation.area is None or annotation.area <= 0:
        return True
    area = annotation.bbox[2] * annotation.bbox[3]
    return math.isclose(annotation.area, area, rel_tol=_AREA_TOLERANCE, abs_tol=_AREA_TOLERANCE_PX2)


def _corners(annotation: _Annotation) -> Xyxy:
    left, top, right, bottom = to_xyxy(annotation.bbox)
    if annotation.far_corner is None:
        return left, top, right, bottom
    if not all(map(math.isclose, annotation.far_corner, (right, bottom))):
        raise MalformedAnnotations(f"Annotation {annotation.id} has a bbox and a {FAR_CORNER} that are not the same.")
    return left, top, *annotation.far_corner


def _describe(image: _Image, boxes: list[Box], notes: Notes) -> AnnotatedImage:
    readers = {*image.readers, *(reader for box in boxes for reader in box.readers)}
    origin = f"image {_name({'id': image.id}, 0)}"
    split = SPLIT_OF.get(image.split.strip().casefold()) if isinstance(image.split, str) else None
    if split is None and image.split not in (None, ""):
        notes.add("split_unknown", origin)
    return AnnotatedImage(
        file_name=image.file_name,
        boxes=tuple(boxes),
        readers=tuple(sorted(readers)),
        patient=None if image.patient is None else pseudonym(str(image.patient)),
        split=split,
        height_px=image.height,
        width_px=image.width,
        origin=origin,
    )


def _check_same_categories(documents: Mapping[Split, Annotations]) -> None:
    first, *others = ((split, annotations.categories) for split, annotations in documents.items())
    for split, categories in others:
        if categories != first[1]:
            differing = sorted({*categories} ^ {*first[1]}, key=lambda category: (category.id, category.name))
            listed = ", ".join(f"{category.id} {category.name}" for category in differing[:4])
            raise MalformedAnnotations(
                f"The documents of {first[0]} and {split} have different categories: {listed}. "
                "Give every document the same categories, with the same ids."
            )


def _check_distinct(what: str, values: Iterable[Hashable]) -> None:
    seen: set[Hashable] = set()
    for value in values:
        if value in seen:
            raise MalformedAnnotations(f"Every {what} must be unique; {value!r:.80} comes twice.")
        seen.add(value)
