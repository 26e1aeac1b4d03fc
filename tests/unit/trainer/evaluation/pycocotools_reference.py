"""pycocotools, run on the same boxes."""

import contextlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from trainer.evaluation.boxes import Boxes
from trainer.evaluation.material import EvaluationSet


@dataclass(frozen=True)
class Reference:
    """What pycocotools is given: the material's own ids, and also images that are not evaluated."""

    dataset: dict[str, Any]
    results: list[dict[str, Any]]
    image_ids: list[int]

    @classmethod
    def of(cls, material: EvaluationSet) -> "Reference":
        annotations = [
            row | {"id": number, "area": row["bbox"][2] * row["bbox"][3], "iscrowd": 0}
            for number, row in enumerate(_as_rows(material.truth), start=1)
        ]
        every_id = sorted({*material.truth, *material.found, *material.image_ids})
        dataset = {
            "images": [{"id": image_id} for image_id in every_id],
            "categories": [category.model_dump() for category in material.categories],
            "annotations": annotations,
        }
        return cls(dataset, _as_rows(material.found), list(material.image_ids))

    def run(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the twelve statistics, and the precision at each overlap, recall, class, area and maximum."""
        with contextlib.redirect_stdout(io.StringIO()):
            truth = COCO()
            truth.dataset = self.dataset
            truth.createIndex()
            evaluation = COCOeval(truth, truth.loadRes(self.results), "bbox")
            evaluation.params.imgIds = self.image_ids
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        return evaluation.stats, evaluation.eval["precision"]


def _as_rows(boxes_of: Mapping[int, Boxes]) -> list[dict[str, Any]]:
    return [
        {"image_id": image_id, "category_id": id_, "bbox": [x, y, far_x - x, far_y - y], "score": score}
        for image_id, boxes in boxes_of.items()
        for id_, (x, y, far_x, far_y), score in zip(
            boxes.category_ids.tolist(), boxes.boxes_xyxy.tolist(), boxes.scores.tolist(), strict=True
        )
    ]
