"""The gate's rules, each at its limit, and what it says."""

from dataclasses import replace

import pytest

from shared.ids import new_id
from shared.training.config import GateConfig
from trainer.decision import Decision, Unknown, decide
from trainer.evaluation.paired import CategoryGain, PairedGain

GATE = GateConfig(evaluation_dataset_id=new_id(), least_gain=0.01, most_class_drop=0.05, counted_from_boxes=20)
STEADY = CategoryGain(1, "Mass", 20, 0.25, 0.25)
BETTER = CategoryGain(2, "Opacity", 400, 0.25, 0.5)
GAIN = PairedGain(
    active_map=0.25, candidate_map=0.375, low=0.05, high=0.2, confidence=0.95, samples=1000, categories=(STEADY, BETTER)
)


def dropping(boxes: int, to: float) -> PairedGain:
    return replace(GAIN, categories=(replace(STEADY, boxes=boxes, candidate_ap=to), BETTER))


def judge(gain: PairedGain, gate: GateConfig = GATE, active: str | None = "old") -> Decision:
    return decide(gain, gate, candidate="new", active=active)


def test_a_clear_gain_without_a_drop_is_promoted_and_explained() -> None:
    decision = judge(GAIN)
    assert (decision.passes, decision.promote) == (True, True)
    assert decision.explanation == (
        "Promoted. new reaches a mAP@0.4 (2 classes) of 0.3750 and the active old 0.2500: a gain of +0.1250 "
        "(95% interval +0.0500 to +0.2000 by paired bootstrap over patients, 1000 resamples). "
        "The lower bound, +0.0500, is above the minimum gain of +0.0100. "
        "Of the 2 classes with at least 20 boxes, none loses precision."
    )


@pytest.mark.parametrize(("low", "passes"), [(0.0101, True), (0.01, False), (0.0099, False), (-0.2, False)])
def test_the_lower_bound_has_to_be_above_the_least_gain(low: float, passes: bool) -> None:
    decision = judge(replace(GAIN, low=low))
    assert decision.passes is passes
    reason = f"Refused. The lower bound of the gain in mAP@0.4 (2 classes) is {low:+.4f}, which is not above +0.0100."
    assert decision.explanation.startswith(reason) is not passes


@pytest.mark.parametrize(
    ("boxes", "to", "passes"),
    [(20, 0.1875, False), (20, 0.203125, True), (19, 0.0, True), (21, 0.0, False)],
)
def test_no_class_that_counts_may_drop_too_much(boxes: int, to: float, passes: bool) -> None:
    decision = judge(dropping(boxes, to))
    assert decision.passes is passes
    reason = f"Refused. Mass ({boxes} boxes) drops by {0.25 - to:.4f}, from 0.2500 to {to:.4f}, more than the 0.0500"
    assert decision.explanation.startswith(reason) is not passes
    assert [row["drops"] for row in decision.figures["classes"]] == [not passes, False]
    assert [row["counts"] for row in decision.figures["classes"]] == [boxes >= 20, True]


def test_a_drop_of_just_the_limit_is_allowed() -> None:
    gate = GATE.model_copy(update={"most_class_drop": 0.0625})
    assert judge(dropping(20, 0.1875), gate).passes
    assert not judge(dropping(20, 0.1875), gate.model_copy(update={"most_class_drop": 0.0624})).passes


def test_a_class_without_a_true_box_neither_counts_nor_drops() -> None:
    absent = CategoryGain(3, "ILD", 0, None, None)
    decision = judge(
        replace(GAIN, categories=(*GAIN.categories, absent)), GATE.model_copy(update={"counted_from_boxes": 1})
    )
    assert decision.passes
    assert decision.figures["classes"][-1] | {"id": 3} == {
        "id": 3,
        "name": "ILD",
        "boxes": 0,
        "candidate_ap40": None,
        "active_ap40": None,
        "gain": None,
        "counts": False,
        "drops": False,
    }


def test_every_reason_is_named_and_the_worst_class_where_none_drops() -> None:
    decision = judge(replace(dropping(20, 0.0), low=-0.1))
    assert decision.explanation.index("lower bound") < decision.explanation.index("Mass") < 250
    assert "Mass loses the most, 0.0312" in judge(dropping(20, 0.21875)).explanation
    assert "No class has 999 boxes" in judge(GAIN, GATE.model_copy(update={"counted_from_boxes": 999})).explanation


def test_without_an_active_model_the_gain_is_the_candidates_own() -> None:
    categories = tuple(replace(category, active_ap=0.0) for category in GAIN.categories)
    decision = judge(replace(GAIN, active_map=0.0, categories=categories), active=None)
    assert decision.promote
    assert decision.explanation.startswith(
        "Promoted. No model is active; new reaches a mAP@0.4 (2 classes) of 0.3750 (95% interval"
    )
    assert (decision.figures["gain"], decision.figures["active_map40"]) == (0.375, None)
    assert {row["active_ap40"] for row in decision.figures["classes"]} == {None}


def test_classes_that_a_model_does_not_know_are_named() -> None:
    unknown = [Unknown("new", ("Mass", "Cyst")), Unknown("old", ("Cyst",)), Unknown("third", ())]
    explanation = decide(GAIN, GATE, candidate="new", active="old", unknown=unknown).explanation
    assert explanation.endswith(
        "new does not know Mass: an unknown class counts as 0. new does not know Cyst: not compared. "
        "old does not know Cyst: not compared."
    )


def test_without_leave_to_promote_a_candidate_passes_and_stays_one() -> None:
    gate = GATE.model_copy(update={"promote": False})
    decision = judge(GAIN, gate)
    assert (decision.passes, decision.promote) == (True, False)
    assert decision.explanation.startswith("Passed. Promotion was not requested.")
    assert judge(replace(GAIN, low=0.0), gate).explanation.startswith("Refused.")


def test_the_metric_is_named() -> None:
    gate = GATE.model_copy(update={"metric": "map40_with_no_finding"})
    decision = judge(replace(GAIN, with_no_finding=True), gate)
    assert "new reaches a VinBigData score (3 classes) of 0.3750" in decision.explanation
    assert decision.figures["metric"] == "map40_with_no_finding"
