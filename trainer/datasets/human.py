"""Human reference: how well one reader of an image and the other readers of it find each other's boxes.

In each round, one reader of each image is held out: in round r, of image number i, reader number (i + r) modulo the
number of readers. There are as many rounds as the image with most readers has, so that each reader of it is held out
once. Values are means over the rounds. The consensus of the others is weighted boxes fusion.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from shared.training.config import Split
from shared.training.dataset_source import Consensus
from trainer.datasets.annotations import AnnotatedImage, Annotations, Box
from trainer.datasets.consensus import agree
from trainer.datasets.splits import SPLITS
from trainer.evaluation.boxes import Boxes
from trainer.evaluation.material import EvaluationSet
from trainer.evaluation.voc import evaluate_voc, mean_of_present, no_finding_ap


def score_readers(annotations: Annotations, splits: Sequence[Split], iou: float) -> dict[str, Any]:
    """Return the scores of each split whose images have several readers; `splits` has one entry per image.

    `annotations` are the boxes before a consensus. Average precisions by class id (as text): `one_reader` of the held
    out reader against the others' consensus, with `no_finding` as one more class; `others` of this consensus, ranked by
    agreement, against the held out reader. Without boxes of single readers there are no scores: {}.
    """
    if any(len(box.readers) != 1 for image in annotations.images for box in image.boxes):
        return {}
    members = list(zip(annotations.images, splits, strict=True))
    scores: dict[str, Any] = {}
    for split in SPLITS:
        images = [image for image, of in members if of == split and len(image.readers) > 1]
        if images:
            scores[split] = _score(replace(annotations, images=tuple(images)), iou)
    return scores


def _score(annotations: Annotations, iou: float) -> dict[str, Any]:
    rounds = range(max(len(image.readers) for image in annotations.images))
    each = [_score_round(annotations, number, iou) for number in rounds]
    ids = [category.id for category in annotations.categories]
    return {
        "images": len(annotations.images),
        "one_reader": {str(id_): mean_of_present([one[id_] for one, _, _ in each]) for id_ in ids},
        "no_finding": mean_of_present([no_finding for _, no_finding, _ in each]),
        "others": {str(id_): mean_of_present([others[id_] for _, _, others in each]) for id_ in ids},
    }


def _score_round(
    annotations: Annotations, number: int, iou: float
) -> tuple[dict[int, float | None], float | None, dict[int, float | None]]:
    ordered = sorted(annotations.images, key=lambda image: image.file_name)
    held_out = [image.readers[(place + number) % len(image.readers)] for place, image in enumerate(ordered)]
    pairs = list(zip(ordered, held_out, strict=True))
    own = [tuple(box for box in image.boxes if reader in box.readers) for image, reader in pairs]
    rest = tuple(_without(image, reader) for image, reader in pairs)
    agreed = [image.boxes for image in agree(replace(annotations, images=rest), Consensus(iou=iou)).images]
    one = _compare(annotations, truth=agreed, found=own)
    others = _compare(annotations, truth=own, found=agreed)
    return evaluate_voc(one).ap_by_category, no_finding_ap(one), evaluate_voc(others).ap_by_category


def _without(image: AnnotatedImage, reader: str) -> AnnotatedImage:
    return replace(image, boxes=tuple(box for box in image.boxes if reader not in box.readers))


def _compare(annotations: Annotations, truth: Sequence[Sequence[Box]], found: Sequence[Sequence[Box]]) -> EvaluationSet:
    numbers = tuple(range(len(truth)))
    return EvaluationSet(
        image_ids=numbers,
        patients=tuple(map(str, numbers)),
        categories=annotations.categories,
        truth=dict(zip(numbers, map(_as_boxes, truth), strict=True)),
        found=dict(zip(numbers, map(_as_boxes, found), strict=True)),
    )


def _as_boxes(boxes: Sequence[Box]) -> Boxes:
    """Return the boxes; the score of each is the number of readers who drew it."""
    return Boxes(
        np.array([box.category_id for box in boxes], np.int64),
        np.array([box.xyxy_px for box in boxes], np.float64).reshape(-1, 4),
        np.array([len(box.readers) for box in boxes], np.float64),
    )
