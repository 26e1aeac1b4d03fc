"""Exported detections, scored again by other means, give the figures of their evaluation."""

import contextlib
import io
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from api.contract.training import DetectionsFormat
from api.training.detections_formats import FORMATS, Detections, NoFindingIdTaken
from shared.detector.card import Category
from tests.kaggle import Xyxy, score_submission
from tests.unit.trainer.evaluation.random_set import draw_set, with_probabilities
from trainer.evaluation.boxes import Boxes
from trainer.evaluation.material import EvaluationSet
from trainer.evaluation.storage import encode_boxes
from trainer.evaluation.summary import summarise


def export(material: EvaluationSet, metrics: dict[str, Any], form: DetectionsFormat) -> str:
    names = {image_id: f"image {image_id}" for image_id in material.image_ids}
    return "".join(FORMATS[form].write(Detections(encode_boxes(material.found), names, metrics)))


def evaluated(material: EvaluationSet, score_threshold: float = 0.001) -> dict[str, Any]:
    return summarise(material, bootstrap_samples=0, seed=0, score_threshold=score_threshold).model_dump(mode="json")


def truth_of(material: EvaluationSet) -> dict[str, list[tuple[int, Xyxy]]]:
    truth: dict[str, list[tuple[int, Xyxy]]] = {}
    for image_id in material.image_ids:
        boxes = material.truth.get(image_id)
        rows = [] if boxes is None else zip(boxes.category_ids.tolist(), boxes.boxes_xyxy.tolist(), strict=True)
        truth[f"image {image_id}"] = [(id_, tuple(box)) for id_, box in rows]
    return truth


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("single", [True, False])
@pytest.mark.parametrize("head", [True, False])
def test_a_submission_scores_what_the_evaluation_reports(seed: int, *, single: bool, head: bool) -> None:
    """Numbers are stored in single precision where they fit. Classes that only the model knows do not count."""
    material = _with_a_class_of_the_model_alone(draw_set(40, 12, 4, seed))
    if single:
        exact = {
            image_id: replace(boxes, scores=boxes.scores.astype(np.float32).astype(float))
            for image_id, boxes in material.found.items()
        }
        material = material.with_found(exact)
    if head:
        material = with_probabilities(material, np.random.default_rng(seed).random(40))
    metrics = evaluated(material, score_threshold=0.05)
    score = score_submission(export(material, metrics, DetectionsFormat.KAGGLE), truth_of(material))
    assert score == pytest.approx(metrics["map40_with_no_finding"], abs=1e-9)


def _with_a_class_of_the_model_alone(material: EvaluationSet) -> EvaluationSet:
    """Add a detection of class 14 to each image; a model's own class can get this number."""
    found = {
        image_id: Boxes(
            np.append(boxes.category_ids, 14),
            np.vstack((boxes.boxes_xyxy, [[0, 0, 1, 1]])),
            np.append(boxes.scores, 0.995),
        )
        for image_id, boxes in material.found.items()
    }
    return material.with_found(found)


@pytest.mark.parametrize("seed", range(3))
def test_coco_results_are_taken_by_pycocotools_and_score_the_same(seed: int) -> None:
    material = _with_a_class_of_the_model_alone(draw_set(40, 12, 4, seed))
    metrics = evaluated(material)
    rows = json.loads(export(material, metrics, DetectionsFormat.COCO))
    boxes = [
        {"image_id": int(name.removeprefix("image ")), "category_id": id_, "bbox": [x, y, right - x, bottom - y]}
        for name, found in truth_of(material).items()
        for id_, (x, y, right, bottom) in found
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "images": [{"id": image_id} for image_id in material.image_ids],
            "categories": [category.model_dump() for category in material.categories],
            "annotations": [
                box | {"id": id_, "area": box["bbox"][2] * box["bbox"][3], "iscrowd": 0}
                for id_, box in enumerate(boxes, start=1)
            ],
        }
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(rows), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    assert evaluation.stats[0] == pytest.approx(metrics["coco_ap"]["value"], abs=1e-9)
    assert evaluation.stats[1] == pytest.approx(metrics["coco_ap50"]["value"], abs=1e-9)


def test_an_image_without_detections_is_submitted_as_normal() -> None:
    box = np.array([[1.5, 2, 30, 40]])
    found = {
        1: Boxes(np.array([3]), box, np.array([0.25])),
        2: Boxes(np.empty(0, np.int64), np.empty((0, 4)), np.empty(0)),
    }
    material = EvaluationSet((1, 2, 7), ("a", "b", "c"), (Category(id=3, name="Cardiomegaly"),), {1: found[1]}, found)
    lines = export(material, evaluated(material), DetectionsFormat.KAGGLE).splitlines()
    assert lines == [
        "image_id,PredictionString",
        "image 1,3 0.25 1.5 2.0 30.0 40.0 14 0.75 0 0 1 1",
        "image 2,14 1.0 0 0 1 1",
        "image 7,14 1.0 0 0 1 1",
    ]
    assert json.loads(export(material.with_found({}), evaluated(material), DetectionsFormat.COCO)) == []


def test_a_class_14_of_the_dataset_cannot_be_submitted() -> None:
    material = draw_set(5, 3, 5)
    with pytest.raises(NoFindingIdTaken, match="coco"):
        export(material, evaluated(material), DetectionsFormat.KAGGLE)


def test_every_format_has_a_writer() -> None:
    assert set(FORMATS) == set(DetectionsFormat)
