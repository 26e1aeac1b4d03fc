"""The score of the VinBigData challenge, computed from a submission alone; shares no code with the package."""

import csv
import io
from collections.abc import Mapping

import numpy as np

Xyxy = tuple[float, ...]
NORMAL = (0.0, 0.0, 1.0, 1.0)


def score_submission(submission: str, truth: Mapping[str, list[tuple[int, Xyxy]]]) -> float:
    """The challenge's score of a submission: mean over classes of VOC 2010's average precision at IoU > 0.4."""
    rows = csv.DictReader(io.StringIO(submission, newline=""))
    predicted: list[tuple[float, str, int, Xyxy]] = []
    for row in rows:
        words = row["PredictionString"].split()
        assert len(words) % 6 == 0
        for start in range(0, len(words), 6):
            class_, score, *box = words[start : start + 6]
            predicted.append((float(score), row["image_id"], int(class_), tuple(map(float, box))))
    predicted.sort(key=lambda one: -one[0])
    true = {name: boxes or [(14, NORMAL)] for name, boxes in truth.items()}
    aps = []
    for class_ in sorted({id_ for boxes in true.values() for id_, _ in boxes}):
        positives = sum(id_ == class_ for boxes in true.values() for id_, _ in boxes)
        claimed, rights = set(), []
        for _, name, id_, box in predicted:
            if id_ != class_:
                continue
            overlaps = [(_iou(box, other), n) for n, (true_id, other) in enumerate(true[name]) if true_id == class_]
            best, number = max(overlaps, key=lambda pair: (pair[0], -pair[1]), default=(0.0, -1))
            rights.append(best > 0.4 and (name, number) not in claimed)
            if rights[-1]:
                claimed.add((name, number))
        hits = np.cumsum(rights)
        precision = np.maximum.accumulate((hits / np.arange(1, len(hits) + 1))[::-1])[::-1]
        aps.append(float(np.sum(precision[np.array(rights, bool)])) / positives)
    return float(np.mean(aps))


def _iou(one: Xyxy, other: Xyxy) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(width, 0) * max(height, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return shared / (sum(areas) - shared)
