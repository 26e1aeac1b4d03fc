"""The document of a dataset: canonical COCO JSON, whose SHA-256 identifies the dataset.

It covers images (by the digests of their originals and renditions), boxes, readers, categories, splits, the options of
the import and the rendition version. It contains no time and no place of creation.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from shared.training.config import Split
from shared.training.dataset_source import Source
from shared.version import RENDITION_VERSION
from trainer.datasets.annotations import (
    FAR_CORNER,
    PROBABILITY,
    AnnotatedImage,
    Annotations,
    Box,
    Xyxy,
    to_xywh,
    to_xyxy,
)
from trainer.datasets.notes import Notes
from trainer.datasets.renditions import Failure, Picture

#: Differences up to this value are caused by rounding.
SIZE_TOLERANCE_PX = 1
#: Codes for a box that extends beyond its image: cut at the edge, or left out because it lies outside completely.
CUT, OUTSIDE = "box_cut_at_the_edge", "box_outside_the_image"
#: Code for an image whose boxes were scaled to the size of its file.
SCALED = "boxes_scaled"
#: Codes for an image: the file is not the annotated one, or is also present under another name.
SIZE_MISMATCH, DUPLICATE = "size_mismatch", "duplicate_image"

_DESCRIPTION = "bbox is x, y, width, height in pixels of the original image. For research use only."


@dataclass(frozen=True)
class Content:
    """The content of a document before it is written: images with their pictures, in the order of their names."""

    annotations: Annotations
    pictures: tuple[Picture, ...]

    def groups(self) -> list[str]:
        """Return for each image what must stay in one split: the patient if known, else the image."""
        return [
            self.patient(image, picture) or f"image:{picture.sha256}"
            for image, picture in zip(self.annotations.images, self.pictures, strict=True)
        ]

    @staticmethod
    def patient(image: AnnotatedImage, picture: Picture) -> str | None:
        """Return the pseudonym in the annotations, else that of the DICOM header, else that of the study."""
        return image.patient or picture.patient or image.study


def match(annotations: Annotations, pictures: Mapping[str, Picture]) -> tuple[Content, list[Failure]]:
    """Match images with their pictures. Boxes are cut at the edges of the file's own size, and this is noted.

    An image without a picture is left out without a failure, because its failure is already known. An image fails if
    its size is not the annotated size and its boxes cannot be scaled, or if it is present under two names.
    """
    notes = Notes.of(annotations)
    images: list[AnnotatedImage] = []
    found: list[Picture] = []
    failures = []
    seen: set[str] = set()
    for image in sorted(annotations.images, key=lambda image: image.file_name):
        picture = pictures.get(image.file_name)
        if picture is None:
            continue
        boxes = place(image, picture)
        if boxes is None or not _hold(image, boxes, picture):
            failures.append(Failure(image.file_name, SIZE_MISMATCH, _mismatch(image, picture)))
        elif picture.sha256 in seen:
            failures.append(Failure(image.file_name, DUPLICATE, "The same file is there under another name."))
        else:
            seen.add(picture.sha256)
            if boxes and boxes is not image.boxes and not image.in_shares:
                notes.add(SCALED, image.origin)
            images.append(replace(image, boxes=_inside(boxes, picture, notes), in_shares=False))
            found.append(picture)
    return Content(notes.onto(replace(annotations, images=tuple(images))), tuple(found)), failures


def place(image: AnnotatedImage, picture: Picture) -> tuple[Box, ...] | None:
    """Return the boxes in pixels of the file, scaled if the annotated size differs; None if they cannot be scaled."""
    if image.in_shares:
        return tuple(replace(box, xyxy_px=_to_pixels(box.xyxy_px, picture)) for box in image.boxes)
    if image.width_px is None or image.height_px is None:
        return image.boxes
    differences = abs(image.height_px - picture.height_px), abs(image.width_px - picture.width_px)
    if max(differences) <= SIZE_TOLERANCE_PX:
        return image.boxes
    turned = (image.width_px, image.height_px) == (picture.height_px, picture.width_px)
    if turned or not image.scales:
        return None
    across, down = picture.width_px / image.width_px, picture.height_px / image.height_px
    return tuple(replace(box, xyxy_px=_scaled(box.xyxy_px, across, down)) for box in image.boxes)


def cut(box: Box, picture: Picture) -> Box | None:
    """Return the part of a box inside the image; None if there is none."""
    left, top, right, bottom = box.xyxy_px
    left, top = max(0.0, left), max(0.0, top)
    right, bottom = min(float(picture.width_px), right), min(float(picture.height_px), bottom)
    if (left, top, right, bottom) == box.xyxy_px:
        return box
    has_area = left < right and top < bottom
    return replace(box, xyxy_px=(left, top, right, bottom)) if has_area else None


def is_held(box: Box, picture: Picture) -> bool:
    """Return whether at least half of a box is inside the image."""
    inside = cut(box, picture)
    return inside is not None and _area(inside) >= _area(box) / 2


def write(name: str, source: Source, rendition_px: int, content: Content, splits: list[Split]) -> bytes:
    """Return the document; `splits` has one entry per image."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    members = zip(content.annotations.images, content.pictures, splits, strict=True)
    for image_id, (image, picture, split) in enumerate(members, start=1):
        images.append(
            {
                "id": image_id,
                "file_name": image.file_name,
                "width": picture.width_px,
                "height": picture.height_px,
                "sha256": picture.sha256,
                "rendition_sha256": picture.rendition_sha256,
                "rendition_width": picture.rendition_width_px,
                "rendition_height": picture.rendition_height_px,
                "patient": content.patient(image, picture),
                "split": split,
                "readers": image.readers,
            }
        )
        for box in image.boxes:
            annotations.append({"id": len(annotations) + 1, "image_id": image_id} | _annotation(box, image.readers))
    info: dict[str, Any] = {
        "name": name,
        "description": _DESCRIPTION,
        "rendition_version": RENDITION_VERSION,
        "rendition_px": rendition_px,
        "choices": source.model_dump(mode="json", include=source.described)
        | {"splits": "as annotated" if source.keeps_splits else source.splits.model_dump(mode="json")},
    }
    if content.annotations.provenance:
        info["provenance"] = content.annotations.provenance
    categories = [category.model_dump() for category in content.annotations.categories]
    return canonical({"info": info, "categories": categories, "images": images, "annotations": annotations})


def _annotation(box: Box, readers: Sequence[str]) -> dict[str, Any]:
    """Return the entry of a box; `agreement` is the share of the image's `readers` who drew it."""
    bbox = to_xywh(box.xyxy_px)
    content: dict[str, Any] = {
        "category_id": box.category_id,
        "bbox": bbox,
        "area": bbox[2] * bbox[3],
        "iscrowd": 0,
        "readers": box.readers,
    }
    if box.readers and readers:
        content["agreement"] = round(len(box.readers) / len(readers), 6)
    if box.probability is not None:
        content[PROBABILITY] = box.probability
    # Some pairs of floats have no float difference that restores them exactly; then the far corner is also written.
    return content if to_xyxy(bbox) == box.xyxy_px else content | {FAR_CORNER: box.xyxy_px[2:]}


def canonical(content: Mapping[str, Any]) -> bytes:
    """Return JSON in UTF-8 with sorted keys and without spaces."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest_of(document: bytes) -> str:
    """Return the digest that identifies a dataset."""
    return hashlib.sha256(document).hexdigest()


def _scaled(box: Xyxy, across: float, down: float) -> Xyxy:
    left, top, right, bottom = box
    return left * across, top * down, right * across, bottom * down


def _to_pixels(box: Xyxy, picture: Picture) -> Xyxy:
    """Return shares as pixels, rounded to the nanopixel: so whole pixels that became shares are whole again."""
    left, top, right, bottom = (round(side, 9) for side in _scaled(box, picture.width_px, picture.height_px))
    return left, top, right, bottom


def _inside(boxes: tuple[Box, ...], picture: Picture, notes: Notes) -> tuple[Box, ...]:
    """Cut boxes at the edges, and note it."""
    inside = []
    for box in boxes:
        left_over = cut(box, picture)
        if left_over is None:
            notes.add(OUTSIDE, box.origin)
            continue
        if left_over is not box:
            notes.add(CUT, box.origin)
        inside.append(left_over)
    return tuple(inside)


def _hold(image: AnnotatedImage, boxes: tuple[Box, ...], picture: Picture) -> bool:
    """Return whether the file can be the annotated one. If no size is given, it must contain most of the boxes."""
    if image.height_px is not None and image.width_px is not None:
        return True
    return sum(not is_held(box, picture) for box in boxes) <= len(boxes) / 2


def _mismatch(image: AnnotatedImage, picture: Picture) -> str:
    file = f"The file has {picture.width_px}×{picture.height_px} pixels"
    if image.height_px is None or image.width_px is None:
        return f"{file}; most of the image's boxes lie outside it."
    return f"{file}; the annotations are of {image.width_px}×{image.height_px}."


def _area(box: Box) -> float:
    left, top, right, bottom = box.xyxy_px
    return (right - left) * (bottom - top)
