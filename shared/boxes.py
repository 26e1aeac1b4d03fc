"""Arithmetic on boxes: xyxy, in pixels, edges counted from the top left corner of the image."""

from collections.abc import Sequence


def iou(one: Sequence[float], other: Sequence[float]) -> float:
    """Return the intersection over union of two boxes, 0 to 1; 0 where both are empty."""
    width = max(0.0, min(one[2], other[2]) - max(one[0], other[0]))
    height = max(0.0, min(one[3], other[3]) - max(one[1], other[1]))
    overlap = width * height
    union = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)) - overlap
    return overlap / union if union > 0 else 0.0
