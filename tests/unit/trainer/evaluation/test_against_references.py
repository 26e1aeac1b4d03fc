"""Every metric equals pycocotools, or a plain implementation that shares no code with it, on a large set."""

import pytest

from tests.unit.trainer.evaluation import naive
from tests.unit.trainer.evaluation.pycocotools_reference import Reference
from tests.unit.trainer.evaluation.random_set import draw_set
from trainer.evaluation.auroc import any_finding_auroc, category_auroc
from trainer.evaluation.coco import evaluate_coco
from trainer.evaluation.froc import RATES, trace_froc
from trainer.evaluation.matching import match_voc
from trainer.evaluation.material import EvaluationSet
from trainer.evaluation.voc import evaluate_voc, no_finding_ap

EXACT = 1e-12


@pytest.fixture(scope="module")
def large() -> EvaluationSet:
    return draw_set(images=3000, detections=100, classes=14)


@pytest.fixture(scope="module")
def judged(large: EvaluationSet) -> naive.Judged:
    return naive.judge(large)


@pytest.mark.parametrize("images", [60, 3000])
def test_coco_statistics_equal_pycocotools(images: int, large: EvaluationSet) -> None:
    material = large if images == len(large.image_ids) else draw_set(images, 150, 3, seed=1)
    scores = evaluate_coco(material)
    statistics, precision = Reference.of(material).run()
    assert list(scores.statistics.values()) == pytest.approx(statistics.tolist(), rel=0, abs=EXACT)
    for number, category in enumerate(material.categories[:-1]):
        ours = (scores.ap_by_category[category.id], scores.ap50_by_category[category.id])
        reference = precision[:, :, number, 0, 2]
        assert ours == pytest.approx((reference.mean(), reference[0].mean()), rel=0, abs=EXACT)
    assert scores.ap_by_category[material.categories[-1].id] is None


def test_the_challenges_metric_equals_a_plain_implementation(large: EvaluationSet, judged: naive.Judged) -> None:
    plain = naive.average_precisions(large, judged)
    ours = evaluate_voc(large).ap_by_category
    absent = large.categories[-1].id
    assert ours.pop(absent) is plain.pop(absent) is None
    assert ours == pytest.approx(plain, rel=0, abs=EXACT)


def test_no_finding_equals_a_plain_implementation(large: EvaluationSet) -> None:
    """As in a submission to the challenge: each image says `14 confidence 0 0 1 1`."""
    ranked = sorted(
        (-(1 - max((score for score, _, _ in naive.detections(large, image_id)), default=0.0)), image_id)
        for image_id in large.image_ids
    )
    normal = [not naive.true_boxes(large, image_id) for _, image_id in ranked]
    assert no_finding_ap(large) == pytest.approx(naive.area(normal, sum(normal)), rel=0, abs=EXACT)


def test_froc_equals_a_plain_implementation(large: EvaluationSet, judged: naive.Judged) -> None:
    froc = trace_froc(large.flat, match_voc(large.flat))
    assert froc is not None
    for rate, lesions, images in zip(RATES, froc.lesions_at(), froc.images_at(), strict=True):
        assert (lesions, images) == pytest.approx(naive.froc(large, judged, rate), rel=0, abs=EXACT)


def test_auroc_equals_the_share_of_pairs_in_order(large: EvaluationSet) -> None:
    assert any_finding_auroc(large.flat) == pytest.approx(naive.auroc(*naive.image_scores(large, None)), abs=EXACT)
    for number in (0, 5):
        plain = naive.auroc(*naive.image_scores(large, large.categories[number].id))
        assert category_auroc(large.flat, number) == pytest.approx(plain, rel=0, abs=EXACT)
    assert category_auroc(large.flat, len(large.categories) - 1) is None
