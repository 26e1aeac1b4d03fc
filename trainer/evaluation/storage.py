"""Boxes of many images as compact JSON, stored with an evaluation so that all its numbers can be recomputed."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.evaluation.boxes import Boxes

_FORMAT = "carina.boxes.1"


def encode_boxes(boxes_of: Mapping[int, Boxes]) -> bytes:
    """Return boxes by image id, in the order of ids, as JSON that preserves each number exactly.

    If all numbers fit single precision, as the outputs of a network do, they are written in its shortest form. Boxes
    are xyxy in original pixels.
    """
    flat = [boxes_of[image_id] for image_id in sorted(boxes_of)]
    single = all(_fits_single(boxes.boxes_xyxy) and _fits_single(boxes.scores) for boxes in flat)
    document = {
        "format": _FORMAT,
        "precision": "single" if single else "double",
        "images": [
            {
                "image_id": image_id,
                "category_ids": boxes_of[image_id].category_ids.tolist(),
                "boxes_xyxy": _shorten(boxes_of[image_id].boxes_xyxy.reshape(-1, 4), single=single),
                "scores": _shorten(boxes_of[image_id].scores, single=single),
            }
            | ({} if boxes_of[image_id].abnormality is None else {"abnormality": boxes_of[image_id].abnormality})
            for image_id in sorted(boxes_of)
        ],
    }
    return json.dumps(document, separators=(",", ":"), allow_nan=False).encode()


def decode_boxes(data: bytes) -> dict[int, Boxes]:
    """Return the boxes of `encode_boxes` as float64. Raises `ValueError` for another format."""
    document = json.loads(data)
    if not isinstance(document, dict) or document.get("format") != _FORMAT:
        raise ValueError(f"these are no boxes as {_FORMAT}")
    single = document["precision"] == "single"
    return {
        entry["image_id"]: Boxes(
            np.array(entry["category_ids"], np.int64),
            _lengthen(entry["boxes_xyxy"], single=single).reshape(-1, 4),
            _lengthen(entry["scores"], single=single),
            entry.get("abnormality"),
        )
        for entry in document["images"]
    }


def _fits_single(values: NDArray[np.floating[Any]]) -> bool:
    with np.errstate(over="ignore"):
        return bool(np.array_equal(values, _lengthen(_shorten(values, single=True), single=True).reshape(values.shape)))


def _shorten(values: NDArray[np.floating[Any]], *, single: bool) -> list[Any]:
    """Return numbers whose decimal form is the shortest that is unique in their precision."""
    doubles = values.astype(np.float32).astype(np.str_) if single else values
    numbers: list[Any] = doubles.astype(np.float64).tolist()
    return numbers


def _lengthen(values: Sequence[Any], *, single: bool) -> NDArray[np.float64]:
    numbers = np.array(values, np.float64)
    return numbers.astype(np.float32).astype(np.float64) if single else numbers
