"""The probability of any finding: small cases counted by hand, and the metrics that are computed from it."""

from dataclasses import replace

import numpy as np
import pytest

from tests.unit.trainer.evaluation.random_set import draw_set, with_probabilities
from trainer.evaluation.abnormality import score_abnormality, weigh_scores
from trainer.evaluation.auroc import any_finding_auroc, auroc
from trainer.evaluation.boxes import Boxes
from trainer.evaluation.material import EvaluationSet
from trainer.evaluation.storage import decode_boxes, encode_boxes
from trainer.evaluation.summary import summarise
from trainer.evaluation.voc import evaluate_voc, no_finding_ap
from trainer.evaluation.weighted import WeightedAuroc, WeightedNoFinding


@pytest.fixture(scope="module")
def drawn() -> tuple[EvaluationSet, np.ndarray]:
    material = draw_set(60, 12, 4, seed=2)
    probabilities = np.round(np.random.default_rng(5).random(60), 2)  # with ties
    return with_probabilities(material, probabilities), probabilities


def test_images_are_ranked_by_their_probability_and_not_by_boxes(drawn: tuple[EvaluationSet, np.ndarray]) -> None:
    material, probabilities = drawn
    assert any_finding_auroc(material.flat) == auroc(probabilities, material.flat.abnormal)
    truth_itself = with_probabilities(material, material.flat.abnormal.astype(float))
    assert (any_finding_auroc(truth_itself.flat), no_finding_ap(truth_itself)) == (1, 1)
    assert no_finding_ap(material) < 0.9
    ones = np.ones((1, 60))
    assert WeightedAuroc(material.flat)(ones)[0] == pytest.approx(any_finding_auroc(material.flat))
    assert WeightedNoFinding(material.flat)(ones)[0] == pytest.approx(no_finding_ap(material))


def test_an_image_without_a_probability_lets_boxes_rank_all(drawn: tuple[EvaluationSet, np.ndarray]) -> None:
    material, _ = drawn
    first = material.ordered_ids[0]
    mixed = material.with_found({**material.found, first: replace(material.found[first], abnormality=None)})
    assert mixed.flat.abnormality is None
    assert score_abnormality(mixed, 0.5) is None
    assert summarise(mixed, bootstrap_samples=0, seed=0).abnormality is None


def test_scores_counted_by_hand() -> None:
    """Two abnormal images with 0.9 and 0.3, two normal ones with 0.4 and 0.1."""
    box = Boxes(np.array([2]), np.array([[0.0, 0, 10, 10]]), np.array([1.0]))
    material = draw_set(4, 1, 2)
    ids = material.ordered_ids
    material = replace(material, truth={ids[0]: box, ids[1]: box})
    scores = score_abnormality(with_probabilities(material, np.array([0.9, 0.3, 0.4, 0.1])), 0.0)
    assert scores is not None
    assert scores.brier == pytest.approx((0.01 + 0.49 + 0.16 + 0.01) / 4)
    assert scores.calibration.ece == pytest.approx((0.1 + 0.7 + 0.4 + 0.1) / 4)
    at = {point.threshold: (point.model, point.all_images) for point in scores.net_benefit}
    assert at[0.2] == pytest.approx((2 / 4 - 1 / 4 * 0.25, 2 / 4 - 2 / 4 * 0.25))
    assert at[0.5] == pytest.approx((1 / 4, 0))
    assert at[0.9] == pytest.approx((1 / 4, 2 / 4 - 2 / 4 * 9))


def test_an_exponent_is_judged_by_the_scores_that_it_would_give(drawn: tuple[EvaluationSet, np.ndarray]) -> None:
    bare, _ = drawn
    weighed = weigh_scores(bare, 0.5)
    for id_ in bare.ordered_ids:
        boxes, factor = bare.found[id_], bare.found[id_].abnormality
        assert weighed.found[id_].scores == pytest.approx(boxes.scores * factor**0.5)
    scores = score_abnormality(weighed, 0.5)
    assert scores is not None
    by_exponent = {point.exponent: point.map40 for point in scores.by_exponent}
    assert by_exponent[0.5] == pytest.approx(evaluate_voc(weighed).mean_ap)
    assert by_exponent[1.0] == pytest.approx(evaluate_voc(weigh_scores(bare, 1)).mean_ap, abs=1e-3)  # ties may break
    assert len({round(value, 6) for value in by_exponent.values() if value is not None}) > 3


def test_probabilities_are_stored_and_summarised(drawn: tuple[EvaluationSet, np.ndarray]) -> None:
    material, probabilities = drawn
    stored = decode_boxes(encode_boxes(material.found))
    assert [stored[id_].abnormality for id_ in material.ordered_ids] == probabilities.tolist()
    assert {boxes.abnormality for boxes in decode_boxes(encode_boxes(draw_set(4, 3, 2).found)).values()} == {None}
    numbers = summarise(material, bootstrap_samples=0, seed=0, abnormality_exponent=0.25).abnormality
    assert numbers is not None
    assert numbers.exponent == 0.25
    assert sum(row.images for row in numbers.reliability) == 60
