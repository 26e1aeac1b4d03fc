"""A resample by weights is the plain metric on copied images; intervals come from patients; models are paired."""

from collections import Counter

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.unit.trainer.evaluation.random_set import draw_set
from trainer.evaluation.auroc import any_finding_auroc
from trainer.evaluation.bootstrap import bootstrap, draw_weights, interval
from trainer.evaluation.boxes import Boxes
from trainer.evaluation.coco import evaluate_coco
from trainer.evaluation.froc import RATES, trace_froc
from trainer.evaluation.matching import match_voc
from trainer.evaluation.material import EvaluationSet
from trainer.evaluation.paired import paired_gain
from trainer.evaluation.voc import evaluate_voc, mean_of_present, no_finding_ap


def draw_apart(images: int, detections: int, classes: int, seed: int) -> EvaluationSet:
    """Draw a set with equal scores in different images, but never in one: copies would take turns in their order."""
    material = draw_set(images, detections, classes, seed)
    places = np.arange(detections) / 10_000
    return material.with_found(
        {
            image_id: Boxes(boxes.category_ids, boxes.boxes_xyxy, np.round(boxes.scores, 1) + places)
            for image_id, boxes in material.found.items()
        }
    )


def copy_images(material: EvaluationSet, copies: NDArray[np.int64]) -> EvaluationSet:
    """Return a set that holds each image as often as `copies` [images] says, under new ids in the same order."""
    named = [
        (image_id, 100 * image_id + copy)
        for image_id, count in zip(material.ordered_ids, copies, strict=True)
        for copy in range(count)
    ]
    truth = {copy: material.truth[image_id] for image_id, copy in named if image_id in material.truth}
    found = {copy: material.found[image_id] for image_id, copy in named if image_id in material.found}
    ids = tuple(copy for _, copy in named)
    return EvaluationSet(ids, tuple(map(str, ids)), material.categories, truth, found)


def measure(material: EvaluationSet) -> dict[str, float | None]:
    coco = evaluate_coco(material).statistics
    froc = trace_froc(material.flat, match_voc(material.flat))
    assert froc is not None
    voc = evaluate_voc(material)
    return {
        "map": voc.mean_ap,
        "map_with_no_finding": mean_of_present([*voc.ap_by_category.values(), no_finding_ap(material)]),
        **{f"ap_{number}": ap for number, ap in enumerate(voc.ap_by_category.values())},
        "coco_ap": coco["AP"],
        "coco_ap50": coco["AP50"],
        "auroc": any_finding_auroc(material.flat),
        "froc_mean": float(np.mean(froc.lesions_at())),
        **{f"lesions_{rate:g}": value for rate, value in zip(RATES, froc.lesions_at(), strict=True)},
        **{f"images_{rate:g}": value for rate, value in zip(RATES, froc.images_at(), strict=True)},
    }


def test_intervals_equal_those_of_copied_images() -> None:
    """There are many ties between images, and in some resamples some classes have no true box."""
    material = draw_apart(40, 30, 8, seed=4)
    drawn = np.concatenate(list(draw_weights(material.groups, 30, seed=5, rows=7))).astype(np.int64)
    plain = [measure(copy_images(material, copies)) for copies in drawn]
    intervals = bootstrap(material, 30, seed=5)
    assert set(intervals) == set(plain[0])
    for name, ours in intervals.items():
        defined = [value for values in plain if (value := values[name]) is not None]
        if not defined:
            assert ours is None, "a class without a true box"
            continue
        low, high = np.quantile(defined, (0.025, 0.975))
        assert ours is not None
        assert (ours.low, ours.high) == pytest.approx((low, high), rel=0, abs=1e-12), name
        assert ours.samples == len(defined)
        assert ours.low < ours.high or name.startswith("ap_"), name


def test_coco_resamples_keep_to_100_detections_of_a_class_in_an_image() -> None:
    material = copy_images(draw_apart(12, 400, 3, seed=6), np.ones(12, np.int64))  # every image is its own patient
    ones = bootstrap(material, 1, seed=0)
    weights = next(draw_weights(material.groups, 1, seed=0, rows=1)).astype(np.int64)[0]
    statistics = evaluate_coco(copy_images(material, weights)).statistics
    assert ones["coco_ap"] is not None
    assert ones["coco_ap"].low == pytest.approx(statistics["AP"], rel=0, abs=1e-12)


def test_a_patients_images_are_drawn_together() -> None:
    groups = np.array([0, 0, 1, 2, 2, 2])
    weights = np.concatenate(list(draw_weights(groups, 200, seed=1, rows=64)))
    assert weights.shape == (200, 6)
    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights[:, 3:] == weights[:, 3:4]).all()
    assert (weights[:, [0, 2, 3]].sum(axis=1) == 3).all()
    assert len(Counter(map(tuple, weights))) == 10  # all ways to draw 3 of 3 with replacement


def test_draws_depend_on_the_seed_alone() -> None:
    groups = np.arange(9)
    one, other, third = (
        np.concatenate(list(draw_weights(groups, 10, seed, rows))) for seed, rows in ((3, 4), (3, 10), (4, 4))
    )
    assert np.array_equal(one, other)
    assert not np.array_equal(one, third)


def test_an_interval_covers_what_other_patients_give() -> None:
    """The 95% interval of mAP from 150 images holds the mAP of a set 20 times as large."""
    whole = evaluate_voc(draw_set(3000, 20, 3, seed=8)).mean_ap
    ours = bootstrap(draw_set(150, 20, 3, seed=9), 300, seed=0)["map"]
    assert whole is not None
    assert ours is not None
    assert ours.low < whole < ours.high
    assert 0.02 < ours.high - ours.low < 0.3


def test_without_resamples_patients_or_true_boxes_there_is_no_interval() -> None:
    material = draw_set(10, 5, 2)
    assert bootstrap(material, 0, seed=0) == {}
    nobody = EvaluationSet((), (), material.categories, material.truth, material.found)
    assert bootstrap(nobody, 5, seed=0) == {}
    normal = EvaluationSet(material.image_ids, material.patients, material.categories, {}, material.found)
    assert set(bootstrap(normal, 5, seed=0).values()) == {None}
    assert interval(np.array([np.nan, 1.0])) == interval(np.array([1.0]))


def improve(material: EvaluationSet, category_id: int) -> EvaluationSet:
    """Return detections that are right for one class, and as they were for the others."""
    found = {}
    for image_id, boxes in material.found.items():
        others = boxes.where(boxes.category_ids != category_id)
        true = material.truth.get(image_id, boxes.where(np.zeros(len(boxes.scores), bool)))
        true = true.where(true.category_ids == category_id)
        found[image_id] = Boxes(
            np.concatenate((others.category_ids, true.category_ids)),
            np.concatenate((others.boxes_xyxy, true.boxes_xyxy)),
            np.concatenate((others.scores, true.scores)),
        )
    return material.with_found(found)


def test_a_better_model_gains_and_a_worse_one_drops() -> None:
    active = draw_set(120, 20, 4, seed=2)
    category = active.categories[1]
    candidate = improve(active, category.id)
    gain = paired_gain(active, candidate, samples=200, seed=0)
    assert (gain.active_map, gain.candidate_map) == (evaluate_voc(active).mean_ap, evaluate_voc(candidate).mean_ap)
    assert 0 < gain.low < gain.gain < gain.high
    assert gain.drops(more_than=0.05, counted_from_boxes=1) == ()
    boxes = sum(int((boxes.category_ids == category.id).sum()) for id_, boxes in active.truth.items() if id_ > 2)
    assert gain.categories[1].boxes == boxes
    assert [bool(category.gain) for category in gain.categories] == [False, True, False, False]

    loss = paired_gain(candidate, active, samples=200, seed=0)
    assert (loss.low, loss.high) == pytest.approx((-gain.high, -gain.low))
    assert [drop.name for drop in loss.drops(0.05, boxes)] == [category.name]
    assert loss.drops(0.05, boxes + 1) == ()
    assert loss.drops(0.99, boxes) == ()


def test_the_gain_is_paired() -> None:
    """The interval is of differences on the same resamples, not of two models resampled apart."""
    active = draw_apart(60, 20, 4, seed=3)
    candidate = active.with_found({id_: boxes.where(boxes.scores < 0.6) for id_, boxes in active.found.items()})
    differences = []
    for weights in np.concatenate(list(draw_weights(active.groups, 25, seed=7, rows=25))).astype(np.int64):
        after, before = (evaluate_voc(copy_images(material, weights)).mean_ap for material in (candidate, active))
        assert before is not None
        assert after is not None
        differences.append(after - before)
    gain = paired_gain(active, candidate, samples=25, seed=7, confidence=0.8)
    assert (gain.low, gain.high) == pytest.approx(tuple(np.quantile(differences, (0.1, 0.9))), rel=0, abs=1e-12)
    same = paired_gain(active, active, samples=25, seed=7)
    assert same.low == same.gain == same.high == 0


def test_no_finding_can_count_as_a_class_of_the_gain() -> None:
    """The candidate is right about normal images, and as the active model on all others."""
    active = draw_apart(60, 20, 4, seed=3)
    abnormal = {id_ for id_, truth in active.truth.items() if len(truth.category_ids)}
    candidate = active.with_found({id_: boxes for id_, boxes in active.found.items() if id_ in abnormal})
    values = [
        mean_of_present([*evaluate_voc(each).ap_by_category.values(), no_finding_ap(each)])
        for each in (active, candidate)
    ]
    gain = paired_gain(active, candidate, samples=25, seed=7, with_no_finding=True)
    assert (gain.active_map, gain.candidate_map) == tuple(values)
    assert gain.low <= gain.gain <= gain.high
    assert gain.gain > paired_gain(active, candidate, samples=25, seed=7).gain


def test_only_models_on_the_same_truth_are_compared() -> None:
    active = draw_set(20, 5, 3)
    fewer = EvaluationSet(active.image_ids[1:], active.patients[1:], active.categories, active.truth, active.found)
    grouped = EvaluationSet(active.image_ids, ("one",) * 20, active.categories, active.truth, active.found)
    for other in (fewer, grouped, draw_set(20, 5, 3, seed=1)):
        with pytest.raises(ValueError, match="not evaluated on the same"):
            paired_gain(active, other, samples=5, seed=0)
    normal = EvaluationSet(active.image_ids, active.patients, active.categories, {}, active.found)
    with pytest.raises(ValueError, match="no true box"):
        paired_gain(normal, normal, samples=5, seed=0)
    with pytest.raises(ValueError, match="resamples"):
        paired_gain(active, active, samples=0, seed=0)
