"""Small cases that can be counted by hand."""

import numpy as np
import pytest

from shared.detector.card import Category
from shared.vocabulary.headlines import read_references
from tests.unit.trainer.evaluation.random_set import draw_set
from trainer.evaluation.auroc import any_finding_auroc
from trainer.evaluation.boxes import Boxes
from trainer.evaluation.calibration import calibrate
from trainer.evaluation.coco import evaluate_coco
from trainer.evaluation.confusion import count_confusions
from trainer.evaluation.froc import trace_froc
from trainer.evaluation.matching import match_voc
from trainer.evaluation.material import EvaluationSet
from trainer.evaluation.storage import decode_boxes
from trainer.evaluation.summary import summarise
from trainer.evaluation.voc import no_finding_ap
from trainer.evaluation.worst import worst_false_alarms, worst_misses

HERE, THERE, NOWHERE = (0.0, 0.0, 100.0, 100.0), (300.0, 300.0, 400.0, 500.0), (700.0, 700.0, 720.0, 720.0)
NODULE, MASS = Category(id=20, name="Nodule"), Category(id=10, name="Mass")


def boxes(*rows: tuple[Category, tuple[float, float, float, float], float]) -> Boxes:
    return Boxes(
        np.array([row[0].id for row in rows], np.int64),
        np.array([row[1] for row in rows], np.float64).reshape(-1, 4),
        np.array([row[2] for row in rows], np.float64),
    )


def material(truth: dict[int, Boxes], found: dict[int, Boxes], images: int = 4) -> EvaluationSet:
    ids = tuple(range(images))
    return EvaluationSet(ids, tuple(map(str, ids)), (NODULE, MASS), truth, found)


#: Image 0: a nodule found twice, a mass called a nodule; 1: a missed mass; 2: normal, with a false alarm; 3: normal.
EXAMPLE = material(
    {0: boxes((NODULE, HERE, 1), (MASS, THERE, 1)), 1: boxes((MASS, THERE, 1))},
    {
        0: boxes((NODULE, HERE, 0.9), (NODULE, HERE, 0.6), (NODULE, THERE, 0.8)),
        1: boxes((MASS, HERE, 0.2)),
        2: boxes((MASS, THERE, 0.8)),
    },
)


def test_sensitivity_is_read_at_thresholds_that_can_be_set() -> None:
    """0.9 finds a lesion; 0.8 adds two false alarms at once, 0.6 and 0.2 one each: 0, 2, 3, 4 on four images."""
    froc = trace_froc(EXAMPLE.flat, match_voc(EXAMPLE.flat))
    assert froc is not None
    assert froc.thresholds.tolist() == [0.9, 0.8, 0.6, 0.2]
    assert froc.false_positives.tolist() == [0, 0.5, 0.75, 1]
    assert froc.lesions_at((0.25, 0.5)) == [pytest.approx(1 / 3)] * 2
    assert froc.images_at((0.25, 0.5)) == [1 / 2] * 2
    assert (froc.threshold_at(0.25), froc.threshold_at(0.5), froc.threshold_at(8)) == (0.9, 0.8, 0.2)
    any_class = trace_froc(EXAMPLE.flat, match_voc(EXAMPLE.flat, by_class=False))
    assert any_class is not None
    assert any_class.lesions_at((0.25,)) == [pytest.approx(2 / 3)]


def test_not_even_the_highest_score_may_keep_to_a_rate() -> None:
    alarm = boxes((MASS, NOWHERE, 0.5), (MASS, HERE, 0.5))
    example = material({1: boxes((MASS, THERE, 1))}, {0: alarm}, images=2)
    froc = trace_froc(example.flat, match_voc(example.flat))
    assert froc is not None
    assert (froc.threshold_at(0.5), froc.lesions_at((0.5,))) == (None, [0])
    assert froc.threshold_at(1) == 0.5
    assert trace_froc(material({}, {}).flat, np.empty(0, np.int64)) is None


def test_no_finding_is_as_sure_as_the_surest_finding_is_not() -> None:
    """Confidences 0.1, 0.8, 0.2 and 1 for images of which the last two are normal: right, wrong, right, wrong."""
    assert no_finding_ap(EXAMPLE) == pytest.approx(1 / 2 + 1 / 2 * 2 / 3)
    assert no_finding_ap(material({0: boxes((MASS, HERE, 1))}, {}, images=1)) is None


def test_equal_image_scores_count_half() -> None:
    """0.9 and 0.2 with findings, 0.8 and 0 without: three of four pairs in order; then half a pair less."""
    assert any_finding_auroc(EXAMPLE.flat) == 3 / 4
    tied = EXAMPLE.with_found({**EXAMPLE.found, 1: boxes((MASS, HERE, 0.8))})
    assert any_finding_auroc(tied.flat) == 3.5 / 4


def test_own_class_comes_first_in_the_confusion() -> None:
    """The mass of image 0 is called a nodule; the second detection of the nodule is a false alarm."""
    assert count_confusions(EXAMPLE.flat, 0.2).tolist() == [[1, 0, 0], [1, 0, 1], [1, 2, 0]]
    assert count_confusions(EXAMPLE.flat, 0.8).tolist() == [[1, 0, 0], [1, 0, 1], [0, 1, 0]]
    both = material({0: boxes((NODULE, HERE, 1), (MASS, HERE, 1))}, {0: boxes((MASS, HERE, 0.9), (NODULE, HERE, 0.8))})
    assert count_confusions(both.flat, 0).tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 0]]


def test_confusions_count_every_box_once() -> None:
    drawn = draw_set(80, 20, 5)
    matrix = count_confusions(drawn.flat, 0.3)
    assert matrix[:-1].sum() == len(drawn.flat.true_class_of)
    assert matrix[:, :-1].sum() == (drawn.flat.scores >= 0.3).sum()
    assert (matrix.diagonal()[:4] > 0).all()


def test_reliability_compares_scores_with_precision_by_bin() -> None:
    calibration = calibrate(np.array([0.0, 0.1, 0.11, 0.9, 1.0, 1.0]), np.array([0, 1, 0, 1, 1, 0], bool))
    filled = {round(row.high, 1): (row.detections, row.precision) for row in calibration.bins if row.detections}
    assert filled == {0.1: (2, 0.5), 0.2: (1, 0.0), 0.9: (1, 1.0), 1.0: (2, 0.5)}
    assert calibration.ece == pytest.approx((2 * 0.45 + 0.11 + 0.1 + 2 * 0.5) / 6)
    assert calibrate(np.empty(0), np.empty(0, bool)).ece is None


def test_the_worst_misses_are_never_found_and_large_and_one_an_image() -> None:
    claims = match_voc(EXAMPLE.flat)
    misses = worst_misses(EXAMPLE.flat, claims, 5)
    assert [(miss.image, miss.category, miss.box_xyxy, miss.score) for miss in misses] == [
        (0, 1, THERE, None),
        (1, 1, THERE, None),
    ]
    alarms = worst_false_alarms(EXAMPLE.flat, claims, 5)
    assert [(alarm.image, alarm.category, alarm.score) for alarm in alarms] == [(0, 0, 0.8), (2, 1, 0.8), (1, 1, 0.2)]
    assert worst_false_alarms(EXAMPLE.flat, claims, 1) == alarms[:1]


def test_a_summary_says_what_it_rests_on() -> None:
    told: list[int] = []
    summary = summarise(EXAMPLE, bootstrap_samples=70, seed=3, score_threshold=0.5, progress=told.append)
    assert (summary.images, summary.patients, summary.images_with_findings) == (4, 4, 2)
    assert (summary.boxes, summary.detections) == (3, 4)  # the one at 0.2 is below the threshold
    assert sum(told) == 70
    assert summary.map40.value == (1 + 0) / 2
    assert summary.map40.low is not None
    assert summary.no_finding_ap40 == pytest.approx(2 / 3)  # image 1 looks normal now, as surely as image 3 is
    assert summary.map40_with_no_finding == pytest.approx((1 + 0 + 2 / 3) / 3)
    assert [category.name for category in summary.categories] == ["Nodule", "Mass"]
    assert summary.operating_threshold == 0.6
    assert [sum(row) for row in summary.confusion] == [1, 2, 2]
    assert [point.lesions.value for point in summary.froc] == [pytest.approx(1 / 3)] * 7
    assert summary == summarise(EXAMPLE, bootstrap_samples=70, seed=3, score_threshold=0.5)


def test_readers_are_scored_on_the_evaluated_classes_only() -> None:
    human = {"images": 3, "one_reader": {"10": 0.5, "20": None, "7": 0.1}, "no_finding": 1.0, "others": {"10": 0.75}}
    summary = summarise(EXAMPLE, bootstrap_samples=0, seed=0, human=human)
    assert summary.human is not None
    assert summary.human.model_dump() == {
        "images": 3,
        "one_reader": 0.5,
        "one_reader_with_no_finding": 0.75,
        "others": 0.75,
    }
    references = [(each.name, each.value) for each in read_references(summary.model_dump())]
    assert references == [
        ("One reader, mAP@0.4 (2 classes)", 0.5),
        ("One reader, VinBigData score (3 classes)", 0.75),
        ("Other readers together, mAP@0.4 (2 classes)", 0.75),
    ]
    assert read_references(summarise(EXAMPLE, bootstrap_samples=0, seed=0).model_dump()) == []


def test_a_class_without_true_boxes_is_absent_and_in_no_mean() -> None:
    summary = summarise(
        material({0: boxes((MASS, HERE, 1))}, {0: boxes((NODULE, HERE, 0.9), (MASS, HERE, 0.8))}),
        bootstrap_samples=0,
        seed=0,
    )
    assert summary.absent == ("Nodule",)
    assert (summary.map40.value, summary.map40.low, summary.coco["AP"]) == (1, None, pytest.approx(1))
    assert [(each.ap40, each.auroc) for each in summary.categories] == [(None, None), (1, 1)]


def test_normal_images_count_their_false_positives() -> None:
    """Image 2 has a detection of 0.8, image 3 none; the others are not normal."""
    rates = {point.threshold: point for point in summarise(EXAMPLE, bootstrap_samples=0, seed=0).normal_films}
    assert (rates[0.7].false_positives, rates[0.7].films_marked) == (0.5, 0.5)
    assert (rates[0.9].false_positives, rates[0.9].films_marked) == (0, 0)
    above = summarise(EXAMPLE, bootstrap_samples=0, seed=0, score_threshold=0.95)
    assert [point.threshold for point in above.normal_films] == [0.95]
    abnormal = material({0: boxes((MASS, HERE, 1))}, {}, images=1)
    assert summarise(abnormal, bootstrap_samples=0, seed=0).normal_films == ()


def test_a_image_with_a_finding_of_another_class_is_not_normal() -> None:
    other = Category(id=99, name="Other")
    truth = {0: boxes((MASS, HERE, 1)), 1: boxes((other, HERE, 1))}
    found = {1: boxes((MASS, THERE, 0.9)), 2: boxes((MASS, THERE, 0.6))}
    summary = summarise(material(truth, found), bootstrap_samples=20, seed=0)
    assert (summary.images_with_findings, summary.boxes) == (2, 1)
    assert {point.threshold: point.false_positives for point in summary.normal_films}[0.5] == 0.5
    # One of the two abnormal images scores highest, the other lowest: 2 of 4 pairs with the normal ones, and a tie.
    assert summary.auroc.value == pytest.approx((2 + 0.5) / 4)
    assert summary.no_finding_ap40 is not None


def test_what_nothing_is_known_about_is_none() -> None:
    for nothing in (material({}, {}, images=0), material({}, {0: boxes((MASS, HERE, 0.5))})):
        summary = summarise(nothing, bootstrap_samples=5, seed=0)
        assert summary.map40.value is summary.auroc.value is summary.froc_mean.value is None
        assert set(summary.coco.values()) == {None}
        assert set(evaluate_coco(nothing).ap_by_category.values()) == {None}
        assert summary.no_finding_ap40 is summary.map40_with_no_finding is None
    assert summary.absent == ("Nodule", "Mass")


def test_broken_input_is_refused() -> None:
    with pytest.raises(ValueError, match="not finite"):
        _ = material({}, {0: boxes((MASS, (0, 0, np.nan, 1), 0.5))}).flat
    with pytest.raises(ValueError, match="differ in number"):
        _ = material({}, {0: Boxes(np.array([10]), np.zeros((2, 4)), np.zeros(2))}).flat
    with pytest.raises(ValueError, match="twice"):
        EvaluationSet((1, 1), ("a", "b"), (MASS,), {}, {})
    with pytest.raises(ValueError, match="patients"):
        EvaluationSet((1, 2), ("a",), (MASS,), {}, {})
    with pytest.raises(ValueError, match="no boxes"):
        decode_boxes(b"[]")
