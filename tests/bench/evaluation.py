"""How fast 3,000 images with 300,000 detections of 14 classes are scored, beside pycocotools in the same run."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from tests.bench.figure import Figure
from tests.unit.trainer.evaluation.pycocotools_reference import Reference
from tests.unit.trainer.evaluation.random_set import SIDE_PX, draw_set
from trainer.evaluation.bootstrap import bootstrap
from trainer.evaluation.coco import CocoScores, evaluate_coco
from trainer.evaluation.material import EvaluationSet
from trainer.evaluation.paired import paired_gain
from trainer.evaluation.report import render_report
from trainer.evaluation.storage import encode_boxes
from trainer.evaluation.summary import summarise
from trainer.evaluation.voc import evaluate_voc

IMAGES, DETECTIONS, CLASSES = 3000, 100, 14
RESAMPLES = 1000

T = TypeVar("T")


def measure() -> Iterator[Figure]:
    """Time each part from boxes in memory; nothing is kept from one to the next."""
    material = draw_set(IMAGES, DETECTIONS, CLASSES)
    reference = Reference.of(material)
    reference_s, (statistics, precision) = _timed(reference.run)
    coco_s, scores = _timed(lambda: evaluate_coco(_anew(material)))
    yield Figure("COCO's statistics by pycocotools", reference_s, "s")
    yield Figure("COCO's statistics", coco_s, "s")
    yield Figure("COCO's statistics, times as fast as pycocotools", reference_s / coco_s, "times", 10)
    by_class = precision[:, :, :, 0, 2]
    yield Figure(
        "statistics and classes that differ by over 1e-12", _differences(scores, statistics, by_class), "", 1, "below"
    )

    yield Figure("VinBigData's metric", _timed(lambda: evaluate_voc(_anew(material)))[0], "s")
    yield Figure(
        f"intervals, {RESAMPLES:,} resamples", _timed(lambda: bootstrap(_anew(material), RESAMPLES, 0))[0], "s"
    )
    other = material.with_found({image_id: boxes for image_id, boxes in material.found.items() if image_id % 5})
    paired_s, _ = _timed(lambda: paired_gain(_anew(material), other, samples=RESAMPLES, seed=0))
    yield Figure(f"the gate's comparison, {RESAMPLES:,} resamples", paired_s, "s")
    summary_s, summary = _timed(lambda: summarise(_anew(material), bootstrap_samples=RESAMPLES, seed=0))
    yield Figure("all numbers", summary_s, "s")
    image = np.zeros((SIDE_PX // 2, SIDE_PX // 2), np.uint8)
    yield Figure("the report", _timed(lambda: render_report(_anew(material), summary, lambda _: image, {}))[0], "s")
    stored_s, stored = _timed(lambda: encode_boxes(material.found))
    yield Figure("detections as JSON", stored_s, "s")
    yield Figure("detections as JSON", len(stored) / 1e6, "MB")


def _differences(scores: CocoScores, statistics: NDArray[np.float64], by_class: NDArray[np.float64]) -> int:
    """Count the numbers that are not those of pycocotools."""
    present = [ap for ap in scores.ap_by_category.values() if ap is not None]
    ours = np.array([*scores.statistics.values(), *present], np.float64)
    reference = by_class.mean(axis=(0, 1))
    return int((np.abs(ours - np.concatenate((statistics, reference[reference > -1]))) > 1e-12).sum())


def _anew(material: EvaluationSet) -> EvaluationSet:
    """Return a copy that has computed nothing yet."""
    return replace(material)


def _timed(work: Callable[[], T]) -> tuple[float, T]:
    begun = time.perf_counter()
    result = work()
    return time.perf_counter() - begun, result
