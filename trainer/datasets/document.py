"""The document that a dataset is: canonical COCO JSON, whose SHA-256 stands for the dataset.

It covers images (by the digests of their originals and renditions), boxes, readers, categories, splits, the choices of
the import and the rendition version. Nothing in it tells of when or where it was made.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from shared.dataset_source import Source
from shared.training import Split
from shared.version import RENDITION_VERSION
from trainer.datasets.annotations import FAR_CORNER, AnnotatedImage, Annotations, Box, to_xywh, to_xyxy
from trainer.datasets.renditions import Failure, Picture

#: Sizes that differ by no more are the same but for rounding.
SIZE_TOLERANCE_PX = 1
#: Of a box that leaves its image: cut at the edge, or left out as nothing of it is inside.
CUT, OUTSIDE = "box_cut_at_the_edge", "box_outside_the_image"
#: Of an image: the file is not the one that was annotated, or was there already under another name.
SIZE_MISMATCH, DUPLICATE = "size_mismatch", "duplicate_image"

_DESCRIPTION = "bbox is x, y, width, height in pixels of the original image. For research use only."


@dataclass(frozen=True)
class Content:
    """A document while it is put together: images with their pictures, in the order of their names."""

    annotations: Annotations
    pictures: tuple[Picture, ...]

    def groups(self) -> list[str]:
        """Of each image what may not be on both sides of a split: the patient where known, else the image."""
        return [
            self.patient(image, picture) or f"image:{picture.sha256}"
            for image, picture in zip(self.annotations.images, self.pictures, strict=True)
        ]

    @staticmethod
    def patient(image: AnnotatedImage, picture: Picture) -> str | None:
        """The pseudonym that the annotations give, else that of the DICOM header, else that of the study."""
        return image.patient or picture.patient or image.study


def match(annotations: Annotations, pictures: Mapping[str, Picture]) -> tuple[Content, list[Failure]]:
    """Bring images and their pictures together; boxes are cut at the edges of the file's own size, and that is noted.

    An image without a picture is left out silently: its failure is known. Others fail here: one whose size is not the
    annotated size, and one that is there under two names.
    """
    noted: Counter[str] = Counter(annotations.noted)
    images: list[AnnotatedImage] = []
    found: list[Picture] = []
    failures = []
    seen: set[str] = set()
    for image in sorted(annotations.images, key=lambda image: image.file_name):
        picture = pictures.get(image.file_name)
        if picture is None:
            continue
        cut = _cut(image.boxes, picture)
        if not _is_of_size(image, cut, picture):
            reason = f"The file has {picture.width_px}×{picture.height_px} pixels; the annotations are of another size."
            failures.append(Failure(image.file_name, SIZE_MISMATCH, reason))
        elif picture.sha256 in seen:
            failures.append(Failure(image.file_name, DUPLICATE, "The same file is there under another name."))
        else:
            seen.add(picture.sha256)
            inside = tuple(box for box in cut if box is not None)
            noted[OUTSIDE] += len(cut) - len(inside)
            noted[CUT] += sum(box is not drawn for drawn, box in zip(image.boxes, cut, strict=True) if box is not None)
            images.append(replace(image, boxes=inside))
            found.append(picture)
    kept = replace(annotations, images=tuple(images), noted={why: count for why, count in noted.items() if count})
    return Content(kept, tuple(found)), failures


def write(name: str, source: Source, rendition_px: int, content: Content, splits: list[Split]) -> bytes:
    """Write the document; `splits` has one for each image."""
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
            annotations.append({"id": len(annotations) + 1, "image_id": image_id} | _annotation(box))
    info: dict[str, Any] = {
        "name": name,
        "description": _DESCRIPTION,
        "rendition_version": RENDITION_VERSION,
        "rendition_px": rendition_px,
        "choices": source.model_dump(mode="json", include={"format", "consensus"})
        | {"splits": "as annotated" if source.keeps_splits else source.splits.model_dump(mode="json")},
    }
    if content.annotations.provenance:
        info["provenance"] = content.annotations.provenance
    categories = [category.model_dump() for category in content.annotations.categories]
    return canonical({"info": info, "categories": categories, "images": images, "annotations": annotations})


def _annotation(box: Box) -> dict[str, Any]:
    bbox = to_xywh(box.xyxy_px)
    content = {
        "category_id": box.category_id,
        "bbox": bbox,
        "area": bbox[2] * bbox[3],
        "iscrowd": 0,
        "readers": box.readers,
    }
    # Two floats need not have a difference that leads from one to the other; then the far corner is written, too.
    return content if to_xyxy(bbox) == box.xyxy_px else content | {FAR_CORNER: box.xyxy_px[2:]}


def canonical(content: Mapping[str, Any]) -> bytes:
    """JSON with sorted keys, without spaces, in UTF-8."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest_of(document: bytes) -> str:
    """The digest that a dataset is known by."""
    return hashlib.sha256(document).hexdigest()


def _cut(boxes: tuple[Box, ...], picture: Picture) -> list[Box | None]:
    """The boxes without what leaves the image; None for one of which nothing is left."""
    cut: list[Box | None] = []
    for box in boxes:
        left, top, right, bottom = box.xyxy_px
        left, top = max(0.0, left), max(0.0, top)
        right, bottom = min(float(picture.width_px), right), min(float(picture.height_px), bottom)
        whole = (left, top, right, bottom) == box.xyxy_px
        has_area = left < right and top < bottom
        cut.append(box if whole else replace(box, xyxy_px=(left, top, right, bottom)) if has_area else None)
    return cut


def _is_of_size(image: AnnotatedImage, cut: list[Box | None], picture: Picture) -> bool:
    """Whether the file may be what was annotated. Where no size says so, no box may lie outside for its larger part."""
    if image.height_px is not None and image.width_px is not None:
        differences = abs(image.height_px - picture.height_px), abs(image.width_px - picture.width_px)
        return max(differences) <= SIZE_TOLERANCE_PX
    return all(
        inside is not None and _area(inside) >= _area(drawn) / 2 for drawn, inside in zip(image.boxes, cut, strict=True)
    )


def _area(box: Box) -> float:
    left, top, right, bottom = box.xyxy_px
    return (right - left) * (bottom - top)
