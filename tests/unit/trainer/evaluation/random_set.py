"""Images with true boxes and detections drawn at random: many ties, images and classes with nothing, ids with gaps."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from shared.detector.card import Category
from trainer.evaluation.boxes import Boxes
from trainer.evaluation.material import EvaluationSet

SIDE_PX = 2000


def draw_set(images: int, detections: int, classes: int, seed: int = 0) -> EvaluationSet:
    """Draw a set whose last class has no true box; a third of the images have none either, and 5% no detection.

    Scores have two or three digits, so that many are equal; two images belong to each patient; truth and detections
    also hold images that are not evaluated.
    """
    draw = np.random.default_rng(seed)
    categories = tuple(Category(id=3 * number + 2, name=f"class {number}") for number in range(classes))
    ids = np.array([category.id for category in categories])
    image_ids = [7 * number + 3 for number in range(images)]
    draw.shuffle(image_ids)
    truth, found = {}, {}
    for image_id in [*image_ids, 1, 2]:
        count = draw.poisson(3) + 1 if draw.random() < 0.67 else 0
        true_ids, true_boxes = draw.choice(ids[:-1], count), _draw_boxes(draw, count)
        if count or draw.random() < 0.5:  # an image without boxes has an entry, or none
            truth[image_id] = Boxes(true_ids, true_boxes, np.ones(count))
        if draw.random() < 0.05:
            continue
        category_ids, boxes = draw.choice(ids, detections), _draw_boxes(draw, detections)
        scores = np.round(draw.beta(0.5, 4, detections), 3)
        near = min(detections, 4 * count)
        if near:
            source = np.arange(near) % count
            boxes[:near] = true_boxes[source] + draw.normal(0, 25, (near, 4))
            boxes[:near, 2:] = np.maximum(boxes[:near, 2:], boxes[:near, :2] + 2)
            category_ids[:near] = np.where(draw.random(near) < 0.8, true_ids[source], category_ids[:near])
            scores[:near] = np.round(np.clip(scores[:near] + draw.random(near) / 2, 0, 1), 2)
        found[image_id] = Boxes(category_ids, boxes, scores)
    patients = tuple(f"patient {image_id // 14}" for image_id in image_ids)
    sizes = dict.fromkeys(image_ids, (SIDE_PX, SIDE_PX))
    return EvaluationSet(tuple(image_ids), patients, categories, truth, found, sizes)


def with_probabilities(material: EvaluationSet, probabilities: NDArray[np.float64]) -> EvaluationSet:
    """Return the set with a probability of any finding for each image, in the order of `ordered_ids`."""
    nothing = Boxes(np.empty(0, np.int64), np.empty((0, 4)), np.empty(0))
    given = zip(material.ordered_ids, probabilities.tolist(), strict=True)
    return material.with_found(
        {id_: replace(material.found.get(id_, nothing), abnormality=probability) for id_, probability in given}
    )


def _draw_boxes(draw: np.random.Generator, count: int) -> NDArray[np.float64]:
    """Draw boxes of whole pixels from 10 to 500 wide and high, so that all of COCO's sizes occur: [count, 4]."""
    corners, sizes = draw.uniform(0, 1500, (count, 2)), draw.uniform(10, 500, (count, 2))
    return np.concatenate((corners, corners + sizes), axis=1).round()
