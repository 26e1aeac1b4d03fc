"""A dataset for training and evaluation: an immutable COCO document, read once."""

import hashlib
import json
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.detector.boxes import Size, rescale
from shared.detector.card import Category
from shared.errors import ObjectCorrupt
from shared.training.config import Split

#: In pixels of the rendition. Thinner boxes show nothing, and lose their area in float32 when they are scaled or moved.
THINNEST_PX = 0.01


@dataclass(frozen=True, eq=False)
class DatasetImage:
    """One image: its rendition and its true boxes."""

    image_id: int
    #: Digests of the original's and the rendition's bytes.
    sha256: str
    rendition_sha256: str
    #: Sizes of the original and of the rendition, in pixels.
    height_px: int
    width_px: int
    rendition_height_px: int
    rendition_width_px: int
    #: A pseudonym; None if the patient is unknown.
    patient: str | None
    split: Split
    category_ids: NDArray[np.int64]  # [n]
    #: float32 [n, 4], in pixels of the original.
    boxes_xyxy_px: NDArray[np.float32]
    #: The readers of the image, and those who drew each box, [n]; both empty if unknown.
    readers: tuple[str, ...] = ()
    box_readers: tuple[tuple[str, ...], ...] = ()
    #: The probability of each box to be a true finding, [n], NaN if unknown; None if unknown for all.
    probabilities: NDArray[np.float64] | None = None

    @property
    def group(self) -> str:
        """Return what must stay in one split: the patient if known, else the image."""
        return self.patient or f"image:{self.sha256}"

    @property
    def boxes_on_rendition(self) -> NDArray[np.float32]:
        """Return the boxes in pixels of the rendition, float32 [n, 4]."""
        return rescale(self.boxes_xyxy_px, self.size_px, self.rendition_size_px).astype(np.float32)

    @property
    def size_px(self) -> Size:
        """Return the width and height of the original."""
        return self.width_px, self.height_px

    @property
    def rendition_size_px(self) -> Size:
        """Return the width and height of the rendition."""
        return self.rendition_width_px, self.rendition_height_px


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images with one list of categories, made by one rendition version."""

    name: str
    #: SHA-256 of the document; it covers images, boxes, categories, splits and the rendition version.
    digest: str
    rendition_version: int
    categories: tuple[Category, ...]
    images: tuple[DatasetImage, ...]

    def of(self, split: Split) -> "Dataset":
        """Return the dataset with the images of one split."""
        return replace(self, images=tuple(image for image in self.images if image.split == split))

    def without(self, groups: frozenset[str], sha256s: frozenset[str]) -> "Dataset":
        """Return the dataset without images of these groups and without these originals."""
        kept = (image for image in self.images if image.group not in groups and image.sha256 not in sha256s)
        return replace(self, images=tuple(kept))


def parse(document: bytes) -> Dataset:
    """Read a stored document. Raises `ObjectCorrupt`."""
    try:
        content = json.loads(document)
        by_image: dict[int, list[dict[str, Any]]] = {}
        for annotation in content["annotations"]:
            by_image.setdefault(annotation["image_id"], []).append(annotation)
        return Dataset(
            name=content["info"]["name"],
            digest=hashlib.sha256(document).hexdigest(),
            rendition_version=content["info"]["rendition_version"],
            categories=tuple(Category.model_validate(category) for category in content["categories"]),
            images=tuple(_image(image, by_image.get(image["id"], [])) for image in content["images"]),
        )
    except (ValueError, KeyError, TypeError) as exc:
        raise ObjectCorrupt("A dataset's document cannot be read.") from exc


def _image(image: dict[str, Any], annotations: list[dict[str, Any]]) -> DatasetImage:
    boxes_xywh = np.array([annotation["bbox"] for annotation in annotations], np.float64).reshape(-1, 4)
    boxes_xyxy_px = np.hstack((boxes_xywh[:, :2], boxes_xywh[:, :2] + boxes_xywh[:, 2:])).astype(np.float32)
    size_px = image["width"], image["height"]
    rendition_size_px = image["rendition_width"], image["rendition_height"]
    # Datasets of earlier versions can contain boxes without area in float32, which make the loss infinite.
    seen = can_be_seen(rescale(boxes_xyxy_px, size_px, rendition_size_px).astype(np.float32))
    annotations = [annotation for annotation, kept in zip(annotations, seen, strict=True) if kept]
    probabilities = np.array([annotation.get("probability", np.nan) for annotation in annotations], np.float64)
    drew = tuple(tuple(annotation.get("readers", ())) for annotation in annotations)
    return DatasetImage(
        image_id=image["id"],
        sha256=image["sha256"],
        rendition_sha256=image["rendition_sha256"],
        height_px=image["height"],
        width_px=image["width"],
        rendition_height_px=image["rendition_height"],
        rendition_width_px=image["rendition_width"],
        patient=image["patient"],
        split=image["split"],
        category_ids=np.array([annotation["category_id"] for annotation in annotations], np.int64),
        boxes_xyxy_px=boxes_xyxy_px[seen],
        readers=tuple(image.get("readers", ())),
        box_readers=drew if all(drew) else (),
        probabilities=None if np.isnan(probabilities).all() else probabilities,
    )


def can_be_seen(boxes_on_rendition: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return which boxes [n, 4] are at least `THINNEST_PX` thick on both sides, as a mask [n]."""
    return np.asarray((boxes_on_rendition[:, 2:] - boxes_on_rendition[:, :2] >= THINNEST_PX).all(axis=1))
