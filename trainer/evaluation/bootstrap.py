"""Confidence intervals of metrics: percentiles over resamples of the patients.

Each resample draws as many patients as the set has, with replacement, and takes all images of each. Images of one
patient resemble each other, so drawing images instead would make the intervals too narrow. A class without a true box
in a resample is left out of the mean of this resample, as in the plain metric. A resample in which the metric is
undefined is left out of the interval.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from trainer.evaluation.flat import Ints, Reals
from trainer.evaluation.froc import RATES
from trainer.evaluation.matching import NONE, match_coco, match_voc
from trainer.evaluation.material import EvaluationSet
from trainer.evaluation.weighted import WeightedAuroc, WeightedFroc, WeightedNoFinding, mean_over_classes, rank

CONFIDENCE = 0.95

#: Maximum number of values in memory. Resamples are processed in chunks, so that memory does not grow with their
#: number.
_CHUNK_NUMBERS = 2_000_000

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Interval:
    """Percentiles of a metric over resamples."""

    low: float
    high: float
    #: Number of resamples in which the metric is defined.
    samples: int


def draw_weights(groups: Ints, samples: int, seed: int, rows: int) -> Iterator[Reals]:
    """Yield how often each resample contains each image, in chunks of at most `rows` resamples: float64 [r, images].

    `groups` [images] is the number of each image's patient, from 0. The draws depend only on the seed, not on `rows`.
    """
    generator = np.random.default_rng(seed)
    patients = int(groups.max()) + 1 if len(groups) else 0
    for start in range(0, samples if patients else 0, rows):
        drawn = [
            np.bincount(generator.integers(0, patients, patients), minlength=patients)
            for _ in range(min(rows, samples - start))
        ]
        yield np.stack(drawn)[:, groups].astype(np.float64)


def bootstrap(
    material: EvaluationSet,
    samples: int,
    seed: int,
    *,
    confidence: float = CONFIDENCE,
    progress: Progress = lambda _: None,
) -> dict[str, Interval | None]:
    """Return an interval for each metric; None if the metric is defined in no resample, or if there are no resamples.

    Metrics: `map`, `map_with_no_finding`, and `ap_N` for class number N (VOC 2010, see `voc`), `coco_ap`, `coco_ap50`,
    `auroc`, `froc_mean`, and `lesions_R` and `images_R` for each R of `RATES` (see `froc`). `progress` is called with
    the number of resamples finished since its last call.
    """
    flat = material.flat
    claims = match_voc(flat)
    by_voc = rank(flat, (claims != NONE)[None])
    by_coco = rank(flat, match_coco(flat), limited=True)
    froc, auroc, no_finding = WeightedFroc(flat, claims), WeightedAuroc(flat), WeightedNoFinding(flat)
    values: dict[str, list[Reals]] = {}
    for weights in draw_weights(material.groups, samples, seed, _rows(len(flat.scores))):
        voc = [ranking.voc(weights) for ranking in by_voc]
        coco = [ranking.coco(weights) for ranking in by_coco]
        lesions, images = froc(weights)
        chunk = {
            "map": mean_over_classes(voc),
            "map_with_no_finding": mean_over_classes([*voc, no_finding(weights)]),
            **{f"ap_{number}": row for number, row in enumerate(voc)},
            "coco_ap": mean_over_classes([ap.mean(axis=0) for ap in coco]),
            "coco_ap50": mean_over_classes([ap[0] for ap in coco]),
            "auroc": auroc(weights),
            "froc_mean": lesions.mean(axis=0),
            **{f"lesions_{rate:g}": row for rate, row in zip(RATES, lesions, strict=True)},
            **{f"images_{rate:g}": row for rate, row in zip(RATES, images, strict=True)},
        }
        for name, row in chunk.items():
            values.setdefault(name, []).append(row)
        progress(len(weights))
    return {name: interval(np.concatenate(rows), confidence) for name, rows in values.items()}


def interval(values: Reals, confidence: float = CONFIDENCE) -> Interval | None:
    """Return the central percentiles of a metric's values over resamples. NaNs are left out."""
    defined = values[~np.isnan(values)]
    if not len(defined):
        return None
    low, high = np.quantile(defined, ((1 - confidence) / 2, (1 + confidence) / 2))
    return Interval(float(low), float(high), len(defined))


def _rows(detections: int) -> int:
    return max(1, min(64, _CHUNK_NUMBERS // max(detections, 1)))
