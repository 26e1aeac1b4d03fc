"""The metric is VOC 2010's at IoU > 0.4, over the evaluated images alone."""

from collections.abc import Sequence

import numpy as np
import pytest

from shared.detector.boxes import iou
from shared.detector.card import Category
from trainer.evaluation.boxes import Boxes
from trainer.evaluation.material import EvaluationSet
from trainer.evaluation.voc import Evaluation, evaluate_voc


def boxes(*rows: tuple[int, tuple[float, float, float, float], float]) -> Boxes:
    """Build boxes from (category, xyxy, score)."""
    return Boxes(
        np.array([row[0] for row in rows], np.int64),
        np.array([row[1] for row in rows], np.float32).reshape(-1, 4),
        np.array([row[2] for row in rows], np.float32),
    )


def evaluate(
    images: Sequence[int], truth: dict[int, Boxes], found: dict[int, Boxes], classes: Sequence[int]
) -> Evaluation:
    categories = tuple(Category(id=each, name=str(each)) for each in classes)
    return evaluate_voc(EvaluationSet(tuple(images), tuple(map(str, images)), categories, truth, found))


SQUARE = (0.0, 0.0, 10.0, 10.0)
ELSEWHERE = (50.0, 50.0, 60.0, 60.0)


def ap(truth: dict[int, Boxes], found: dict[int, Boxes], images: tuple[int, ...] = (1, 2, 3)) -> float | None:
    return evaluate(images, truth, found, [7]).ap_by_category[7]


def test_right_boxes_before_wrong_ones_are_perfect() -> None:
    truth = {1: boxes((7, SQUARE, 1)), 2: boxes((7, SQUARE, 1))}
    found = {1: boxes((7, SQUARE, 0.9), (7, ELSEWHERE, 0.2)), 2: boxes((7, SQUARE, 0.8))}
    assert ap(truth, found) == 1


def test_the_area_is_exact_under_precision_made_to_fall() -> None:
    """Right, wrong, right, missed: precision 1 up to recall 1/3, then 2/3 up to recall 2/3."""
    truth = {image: boxes((7, SQUARE, 1)) for image in (1, 2, 3)}
    found = {1: boxes((7, SQUARE, 0.9)), 2: boxes((7, ELSEWHERE, 0.8), (7, SQUARE, 0.7))}
    assert ap(truth, found) == pytest.approx(1 / 3 + 2 / 3 * 1 / 3)


def test_a_dip_is_filled_by_the_better_precision_after_it() -> None:
    """Wrong, right, right: precision is 2/3 at the end, and counts from the start."""
    truth = {1: boxes((7, SQUARE, 1), (7, ELSEWHERE, 1))}
    found = {1: boxes((7, (90, 90, 95, 95), 0.9), (7, SQUARE, 0.8), (7, ELSEWHERE, 0.7))}
    assert ap(truth, found) == pytest.approx(2 / 3)


def test_a_true_box_is_found_once() -> None:
    truth = {1: boxes((7, SQUARE, 1)), 2: boxes((7, SQUARE, 1))}
    found = {1: boxes((7, SQUARE, 0.9), (7, SQUARE, 0.8)), 2: boxes((7, SQUARE, 0.7))}
    assert ap(truth, found) == pytest.approx(1 / 2 + 1 / 2 * 2 / 3)


def test_an_overlap_of_exactly_the_limit_is_a_miss() -> None:
    truth = {1: boxes((7, SQUARE, 1))}
    assert ap(truth, {1: boxes((7, (0, 0, 10, 4), 0.9))}) == 0
    assert ap(truth, {1: boxes((7, (0, 0, 10, 4.1), 0.9))}) == 1


def test_only_evaluated_images_count() -> None:
    truth = {1: boxes((7, SQUARE, 1)), 4: boxes((7, SQUARE, 1))}
    found = {1: boxes((7, SQUARE, 0.5)), 5: boxes((7, ELSEWHERE, 0.9))}
    assert ap(truth, found, images=(1,)) == 1
    assert ap(truth, found, images=(1, 4)) == 0.5
    assert ap(truth, found, images=(1, 5)) == 0.5


def test_a_box_of_another_class_or_image_is_wrong() -> None:
    truth = {1: boxes((7, SQUARE, 1)), 2: boxes()}
    assert ap(truth, {1: boxes((8, SQUARE, 0.9)), 2: boxes((7, SQUARE, 0.9))}) == 0


def test_a_class_without_a_true_box_is_left_out_and_said() -> None:
    truth = {1: boxes((7, SQUARE, 1))}
    evaluation = evaluate([1], truth, {1: boxes((9, SQUARE, 0.9), (7, SQUARE, 0.1))}, [7, 9])
    assert evaluation.ap_by_category == {7: 1, 9: None}
    assert evaluation.mean_ap == 1
    assert evaluate([1], {}, {}, [7]).mean_ap is None


def test_overlap_of_empty_boxes_is_nothing() -> None:
    point = np.array([[5, 5, 5, 5]], np.float32)
    assert iou(point, point) == 0
    assert iou(np.array([SQUARE], np.float32), np.array([(5, 0, 15, 10)], np.float32)) == pytest.approx(1 / 3)
