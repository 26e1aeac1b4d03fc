"""The metrics once more, as slowly and plainly as their definitions read; shares no code with the package."""

from collections.abc import Sequence

from trainer.evaluation.material import EvaluationSet

Box = tuple[float, float, float, float]
#: Score, image, class and rightness of every detection, best first.
Judged = list[tuple[float, int, int, bool]]


def iou(a: Box, b: Box) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def true_boxes(material: EvaluationSet, image_id: int) -> list[tuple[int, Box]]:
    boxes = material.truth.get(image_id)
    return [] if boxes is None else list(zip(boxes.category_ids.tolist(), boxes.boxes_xyxy.tolist(), strict=True))


def detections(material: EvaluationSet, image_id: int) -> list[tuple[float, int, Box]]:
    boxes = material.found.get(image_id)
    if boxes is None:
        return []
    return list(zip(boxes.scores.tolist(), boxes.category_ids.tolist(), boxes.boxes_xyxy.tolist(), strict=True))


def judge(material: EvaluationSet) -> Judged:
    ranked = [
        (score, image_id, category_id, box)
        for image_id in sorted(material.image_ids)
        for score, category_id, box in detections(material, image_id)
    ]
    ranked.sort(key=lambda row: -row[0])
    claimed = set()
    judged = []
    for score, image_id, category_id, box in ranked:
        best, best_iou = None, 0.4
        for number, (true_id, true_box) in enumerate(true_boxes(material, image_id)):
            if true_id == category_id and (overlap := iou(box, true_box)) > best_iou:
                best, best_iou = number, overlap
        right = best is not None and (image_id, best) not in claimed
        if right:
            claimed.add((image_id, best))
        judged.append((score, image_id, category_id, right))
    return judged


def area(rights: Sequence[bool], positives: int) -> float:
    """VOC 2010: at each new recall, the best precision at that recall or a higher one."""
    precisions, hits = [], 0
    for rank, right in enumerate(rights, start=1):
        hits += right
        precisions.append(hits / rank)
    total, best = 0.0, 0.0
    for right, precision in zip(reversed(rights), reversed(precisions), strict=True):
        best = max(best, precision)
        total += best / positives if right else 0.0
    return total


def average_precisions(material: EvaluationSet, judged: Judged) -> dict[int, float | None]:
    aps: dict[int, float | None] = {}
    for category in material.categories:
        positives = sum(
            true_id == category.id for image_id in material.image_ids for true_id, _ in true_boxes(material, image_id)
        )
        rights = [right for _, _, category_id, right in judged if category_id == category.id]
        aps[category.id] = area(rights, positives) if positives else None
    return aps


def froc(material: EvaluationSet, judged: Judged, rate: float) -> tuple[float, float]:
    """Share of lesions, and of images with lesions, found at the best threshold with at most `rate` alarms an image."""
    lesions = sum(len(true_boxes(material, image_id)) for image_id in material.image_ids)
    images = sum(bool(true_boxes(material, image_id)) for image_id in material.image_ids)
    best = (0.0, 0.0)
    hits, alarms, seen = 0, 0, set()
    for place, (score, image_id, _, right) in enumerate(judged):
        hits, alarms = hits + right, alarms + (not right)
        if right:
            seen.add(image_id)
        tied = place + 1 < len(judged) and judged[place + 1][0] == score
        if not tied and alarms <= rate * len(material.image_ids):
            best = (hits / lesions, len(seen) / images)
    return best


def auroc(positive: Sequence[float], negative: Sequence[float]) -> float:
    wins = sum((one > other) + (one == other) / 2 for one in positive for other in negative)
    return wins / (len(positive) * len(negative))


def image_scores(material: EvaluationSet, category_id: int | None) -> tuple[list[float], list[float]]:
    """Highest scores of images with a box (of a class), and of those without."""
    positive, negative = [], []
    for image_id in material.image_ids:
        scores = [score for score, id_, _ in detections(material, image_id) if category_id in (None, id_)]
        ill = any(category_id in (None, id_) for id_, _ in true_boxes(material, image_id))
        (positive if ill else negative).append(max(scores, default=0.0))
    return positive, negative
