"""COCO's twelve statistics and the average precision of each class, by hotcoco; the reference is pycocotools."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from hotcoco import COCO, COCOeval
from numpy.typing import NDArray

from trainer.evaluation.flat import Flat
from trainer.evaluation.material import EvaluationSet

#: COCO's names, in the order in which pycocotools prints them. `s`, `m` and `l` are boxes with an area below 32², below
#: 96², and from there on, in original pixels. Nearly all boxes in chest images are large.
STATISTICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")

_ALL, _SMALL, _MEDIUM, _LARGE = range(4)  # indices of COCO's areas
_MAX_DETECTIONS_1, _MAX_DETECTIONS_10, _MAX_DETECTIONS_100 = range(
    3
)  # indices of COCO's limits of detections per class and image


@dataclass(frozen=True)
class CocoScores:
    """The values that pycocotools computes; None if there is no true box of the class or size."""

    statistics: dict[str, float | None]
    ap_by_category: dict[int, float | None]
    ap50_by_category: dict[int, float | None]


def evaluate_coco(material: EvaluationSet) -> CocoScores:
    """Compute COCO's statistics over the images. Areas are those of the true boxes."""
    flat = material.flat
    if not flat.images:
        nothing: dict[int, float | None] = {category.id: None for category in material.categories}
        return CocoScores(dict.fromkeys(STATISTICS), nothing, nothing)
    truth = COCO(_as_dataset(flat))
    evaluation = COCOeval(truth, truth.load_res(_as_results(flat)), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    results = evaluation.eval or {}
    precision = np.asarray(results["precision"])  # [10 IoUs, 101 recalls, classes, areas, limits]; -1 means undefined
    recall = np.asarray(results["recall"])  # [10, classes, areas, limits]
    best = precision[:, :, :, _ALL, _MAX_DETECTIONS_100]
    values = [
        *(_mean(part) for part in (best, best[0], best[5])),
        *(_mean(precision[:, :, :, area, _MAX_DETECTIONS_100]) for area in (_SMALL, _MEDIUM, _LARGE)),
        *(_mean(recall[:, :, _ALL, most]) for most in (_MAX_DETECTIONS_1, _MAX_DETECTIONS_10, _MAX_DETECTIONS_100)),
        *(_mean(recall[:, :, area, _MAX_DETECTIONS_100]) for area in (_SMALL, _MEDIUM, _LARGE)),
    ]
    ids = [category.id for category in material.categories]
    return CocoScores(
        dict(zip(STATISTICS, values, strict=True)),
        {id_: _mean(best[:, :, number]) for number, id_ in enumerate(ids)},
        {id_: _mean(best[0, :, number]) for number, id_ in enumerate(ids)},
    )


def _as_dataset(flat: Flat) -> dict[str, Any]:
    """Return the true boxes as a COCO dataset. Images and classes are numbered from 1, independent of their ids."""
    corners, sizes = flat.true_boxes_xyxy[:, :2], flat.true_boxes_xyxy[:, 2:] - flat.true_boxes_xyxy[:, :2]
    rows = zip(
        flat.true_image_of.tolist(),
        flat.true_class_of.tolist(),
        np.concatenate((corners, sizes), axis=1).tolist(),
        sizes.prod(axis=1).tolist(),
        strict=True,
    )
    return {
        "images": [{"id": image + 1} for image in range(flat.images)],
        "categories": [{"id": number + 1, "name": str(number)} for number in range(flat.classes)],
        "annotations": [
            {"id": id_, "image_id": image + 1, "category_id": number + 1, "bbox": box, "area": area, "iscrowd": 0}
            for id_, (image, number, box, area) in enumerate(rows, start=1)
        ],
    }


def _as_results(flat: Flat) -> NDArray[np.float64]:
    """Return the detections as rows of image, x, y, width, height, score and class."""
    corners, sizes = flat.boxes_xyxy[:, :2], flat.boxes_xyxy[:, 2:] - flat.boxes_xyxy[:, :2]
    return np.column_stack((flat.image_of + 1, corners, sizes, flat.scores, flat.class_of + 1))


def _mean(values: NDArray[np.float64]) -> float | None:
    present = values[values > -1]
    return float(present.mean()) if present.size else None
