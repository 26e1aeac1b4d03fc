"""Statistics of a dataset."""

import json
from collections import Counter
from collections.abc import Iterable
from typing import Any

from trainer.datasets.annotations import STUDY
from trainer.datasets.splits import SPLITS

#: COCO's limits of the area between small and medium, and between medium and large, in pixels of the rendition.
MEDIUM_FROM_PX2, LARGE_FROM_PX2 = 32**2, 96**2
SIZES = ("small", "medium", "large")


def summarize(document: bytes) -> dict[str, Any]:
    """Count images, patients and boxes by split, class, reader and size.

    Sizes are those of COCO for the box in the rendition, which is closest to the input of a detector: small below 32²
    pixels, large from 96² pixels.
    """
    content = json.loads(document)
    images = {image["id"]: image for image in content["images"]}
    boxes = content["annotations"]
    found_on = {box["image_id"] for box in boxes}
    groups = {(image["split"], image["patient"] or image["sha256"]) for image in images.values()}
    return {
        "splits": {
            split: {
                "images": sum(image["split"] == split for image in images.values()),
                "without_findings": sum(
                    image["split"] == split and image_id not in found_on for image_id, image in images.items()
                ),
                "patients": sum(of == split for of, _ in groups),
                "boxes": sum(images[box["image_id"]]["split"] == split for box in boxes),
            }
            for split in SPLITS
        },
        "images_of_known_patients": sum(_has_known_patient(image) for image in images.values()),
        "classes": _classes(content["categories"], images, boxes),
        "readers": _readers(images, boxes),
        "sizes": _sizes(images, boxes),
    }


def _has_known_patient(image: dict[str, Any]) -> bool:
    return image["patient"] is not None and not image["patient"].startswith(STUDY)


def size_of(image: dict[str, Any], box: dict[str, Any]) -> str:
    """Return whether a box is small, medium or large in the rendition of its image."""
    scale = image["rendition_width"] / image["width"] * image["rendition_height"] / image["height"]
    area_px2 = box["area"] * scale
    return SIZES[(area_px2 >= MEDIUM_FROM_PX2) + (area_px2 >= LARGE_FROM_PX2)]


def _classes(
    categories: list[dict[str, Any]], images: dict[int, dict[str, Any]], boxes: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    in_split = Counter((box["category_id"], images[box["image_id"]]["split"]) for box in boxes)
    on_images = Counter(category_id for category_id, _ in {(box["category_id"], box["image_id"]) for box in boxes})
    of_size = Counter((box["category_id"], size_of(images[box["image_id"]], box)) for box in boxes)
    return [
        {
            **category,
            "boxes": {split: in_split[category["id"], split] for split in SPLITS},
            "images": on_images[category["id"]],
            "sizes": {size: of_size[category["id"], size] for size in SIZES},
            "drawn_by": _drawn_by(box for box in boxes if box["category_id"] == category["id"]),
        }
        for category in categories
    ]


def _drawn_by(boxes: Iterable[dict[str, Any]]) -> dict[str, int]:
    """Return the number of boxes by the number of readers who drew them (as text)."""
    counted = Counter(len(box["readers"]) for box in boxes if box["readers"])
    return {str(readers): counted[readers] for readers in sorted(counted)}


def _readers(images: dict[int, dict[str, Any]], boxes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    read = Counter(reader for image in images.values() for reader in image["readers"])
    drew = Counter(reader for box in boxes for reader in box["readers"])
    return [{"reader": reader, "images": read[reader], "boxes": drew[reader]} for reader in sorted(read)]


def _sizes(images: dict[int, dict[str, Any]], boxes: list[dict[str, Any]]) -> dict[str, int]:
    counted = Counter(size_of(images[box["image_id"]], box) for box in boxes)
    return {size: counted[size] for size in SIZES}
