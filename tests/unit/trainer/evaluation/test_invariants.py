"""What holds for any boxes: the order of images, ids and the like change nothing; nothing breaks on what is empty."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from shared.detector.card import Category
from trainer.evaluation.auroc import auroc
from trainer.evaluation.boxes import Boxes
from trainer.evaluation.froc import RATES, trace_froc
from trainer.evaluation.matching import match_voc
from trainer.evaluation.material import EvaluationSet
from trainer.evaluation.storage import decode_boxes, encode_boxes
from trainer.evaluation.summary import summarise
from trainer.evaluation.voc import evaluate_voc

CATEGORIES = (Category(id=4, name="four"), Category(id=1, name="one"), Category(id=9, name="nine"))


@st.composite
def some_boxes(draw: st.DrawFn) -> Boxes:
    """A few boxes on a coarse grid, so that they often meet; scores often equal; a category is sometimes unknown."""
    rows = draw(
        st.lists(
            st.tuples(
                st.sampled_from((4, 1, 9, 7)),
                *[st.integers(0, 3)] * 2,
                *[st.integers(1, 3)] * 2,
                st.sampled_from((0.1, 0.25, 0.5, 1.0)),
            ),
            max_size=6,
        )
    )
    return Boxes(
        np.array([row[0] for row in rows], np.int64),
        np.array([(x, y, x + width, y + height) for _, x, y, width, height, _ in rows], float).reshape(-1, 4) * 10,
        np.array([row[5] for row in rows], float),
    )


@st.composite
def materials(draw: st.DrawFn) -> EvaluationSet:
    ids = tuple(draw(st.lists(st.integers(0, 30), unique=True, max_size=6)))
    by_image = st.dictionaries(st.integers(0, 30), some_boxes(), max_size=6)
    sometimes = {id_: draw(some_boxes()) for id_ in ids if draw(st.booleans())}
    patients = tuple(draw(st.sampled_from("abc")) for _ in ids)
    return EvaluationSet(ids, patients, CATEGORIES, draw(by_image) | sometimes, draw(by_image) | sometimes)


@settings(max_examples=60)
@given(materials(), st.randoms(use_true_random=False))
def test_the_order_of_images_changes_nothing(material: EvaluationSet, random: "np.random.RandomState") -> None:
    order = list(range(len(material.image_ids)))
    random.shuffle(order)
    shuffled = EvaluationSet(
        tuple(material.image_ids[n] for n in order),
        tuple(material.patients[n] for n in order),
        CATEGORIES,
        dict(reversed(list(material.truth.items()))),
        dict(reversed(list(material.found.items()))),
    )
    one, other = (summarise(each, bootstrap_samples=5, seed=0) for each in (material, shuffled))
    assert one == other
    assert one.model_validate_json(one.model_dump_json()) == one


@settings(max_examples=60)
@given(materials(), some_boxes())
def test_more_boxes_with_low_scores_never_lower_a_precision(material: EvaluationSet, extra: Boxes) -> None:
    more = {
        id_: Boxes(
            np.concatenate((boxes.category_ids, extra.category_ids)),
            np.concatenate((boxes.boxes_xyxy, extra.boxes_xyxy)),
            np.concatenate((boxes.scores, extra.scores * 0.01)),
        )
        for id_, boxes in material.found.items()
    }
    before, after = evaluate_voc(material), evaluate_voc(material.with_found(more))
    for category_id, ap in before.ap_by_category.items():
        grown = after.ap_by_category[category_id]
        assert (ap is None) == (grown is None)
        assert grown is None or ap is None or grown >= ap - 1e-12


@settings(max_examples=60)
@given(materials())
def test_truth_as_detections_is_perfect_where_boxes_do_not_coincide(material: EvaluationSet) -> None:
    """Each true box once, however they overlap: nothing is more alike to a box than itself."""
    distinct = {}
    for id_, boxes in material.truth.items():
        rows = np.column_stack((boxes.category_ids, boxes.boxes_xyxy))
        distinct[id_] = boxes.where(np.isin(np.arange(len(rows)), np.unique(rows, axis=0, return_index=True)[1]))
    perfect = EvaluationSet(material.image_ids, material.patients, CATEGORIES, distinct, distinct)
    assert evaluate_voc(perfect).mean_ap in (1.0, None)
    if froc := trace_froc(perfect.flat, match_voc(perfect.flat)):
        assert froc.lesions_at() == froc.images_at() == [1.0] * len(RATES)


@settings(max_examples=60)
@given(materials())
def test_sensitivity_rises_with_false_positives(material: EvaluationSet) -> None:
    if froc := trace_froc(material.flat, match_voc(material.flat)):
        for column in (froc.false_positives, froc.lesion_sensitivity, froc.image_sensitivity):
            assert (np.diff(column) >= 0).all()
        assert froc.lesions_at() == sorted(froc.lesions_at())


@given(st.lists(st.tuples(st.sampled_from((0.0, 0.2, 0.2000001, 0.9)), st.booleans()), max_size=12))
def test_auroc_of_swapped_labels_is_the_complement(rows: list[tuple[float, bool]]) -> None:
    scores, positive = np.array([row[0] for row in rows], float), np.array([row[1] for row in rows], bool)
    area = auroc(scores, positive)
    if area is None:
        assert positive.all() or not positive.any()
    else:
        assert auroc(scores, ~positive) == pytest.approx(1 - area)


finite = {"allow_nan": False, "allow_infinity": False}


@given(
    arrays(np.float32, st.tuples(st.integers(0, 4), st.just(5)), elements=st.floats(width=32, **finite)),
    arrays(np.float64, st.tuples(st.integers(0, 4), st.just(5)), elements=st.floats(**finite)),
)
def test_stored_boxes_come_back_exactly(single: np.ndarray, double: np.ndarray) -> None:
    boxes = {n: Boxes(np.arange(len(rows)), rows[:, :4], rows[:, 4]) for n, rows in enumerate((single, double))}
    for chosen in (boxes, {0: boxes[0]}):
        stored = decode_boxes(encode_boxes(chosen))
        assert stored.keys() == chosen.keys()
        for id_, each in chosen.items():
            assert np.array_equal(stored[id_].category_ids, each.category_ids)
            assert np.array_equal(stored[id_].boxes_xyxy, each.boxes_xyxy)
            assert np.array_equal(stored[id_].scores, each.scores)
