"""The main figures of an evaluation, as the report, the command line and the console show them."""

from typing import Any

import pytest

from shared.vocabulary.headlines import read_headlines

METRICS: dict[str, Any] = {
    "categories": [{"name": "Nodule/Mass"}, {"name": "Cardiomegaly"}],
    "map40": {"value": 0.25, "low": 0.125, "high": 0.5},
    "map40_with_no_finding": 0.375,
    "coco_ap": {"value": 0.1, "low": None, "high": None},
    "froc": [
        {"false_positives": 0.5, "lesions": {"value": 0.5, "low": 0.4, "high": 0.6}},
        {"false_positives": 1, "lesions": {"value": 0.75, "low": 0.7, "high": 0.8}},
    ],
}


def test_names_say_how_many_classes_a_mean_covers() -> None:
    names = [headline.name for headline in read_headlines(METRICS)]
    assert names[:2] == ["mAP@0.4 (2 classes)", "VinBigData score (3 classes)"]
    single = METRICS | {"categories": METRICS["categories"][:1]}
    assert read_headlines(single)[0].name == "mAP@0.4 (1 class)"


@pytest.mark.parametrize("interval", [(None, None), (0.25, 0.5)])
def test_figures_have_their_intervals(interval: tuple[float | None, float | None]) -> None:
    """Evaluations of earlier versions have none of the challenge's score."""
    low, high = interval
    bounds = {} if low is None else {"map40_with_no_finding_low": low, "map40_with_no_finding_high": high}
    found = {each.key: (each.value, each.low, each.high) for each in read_headlines(METRICS | bounds)}
    assert found["map40"] == (0.25, 0.125, 0.5)
    assert found["map40_with_no_finding"] == (0.375, low, high)
    assert found["lesions_1"] == (0.75, 0.7, 0.8)
    assert found["auroc"] == (None, None, None)
