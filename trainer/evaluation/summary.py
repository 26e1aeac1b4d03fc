"""Everything that an evaluation says in numbers: stored with it, answered by the API, shown in its report."""

from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict

from trainer.evaluation.auroc import any_finding_auroc, category_auroc
from trainer.evaluation.bootstrap import CONFIDENCE, Interval, Progress, bootstrap
from trainer.evaluation.calibration import Calibration, calibrate
from trainer.evaluation.coco import CocoScores, evaluate_coco
from trainer.evaluation.confusion import count_confusions
from trainer.evaluation.froc import RATES, Froc, trace_froc
from trainer.evaluation.matching import IOU_ABOVE, NONE, match_voc
from trainer.evaluation.material import EvaluationSet
from trainer.evaluation.normals import THRESHOLDS, count_on_normals
from trainer.evaluation.voc import Evaluation, evaluate_voc, mean_of_present, no_finding_ap


class _Numbers(BaseModel):
    model_config = ConfigDict(frozen=True)


class Estimate(_Numbers):
    """A metric and its interval; None where it is not defined."""

    value: float | None
    low: float | None = None
    high: float | None = None


class CategoryScores(_Numbers):
    """One class; average precisions are None where it has no true box."""

    id: int
    name: str
    boxes: int
    #: Images with a true box of the class.
    images: int
    detections: int
    #: VOC 2010 at IoU > 0.4, and its interval; None without one, and in evaluations that know of none.
    ap40: float | None
    ap40_low: float | None = None
    ap40_high: float | None = None
    #: COCO, mean over IoU 0.5 to 0.95.
    ap: float | None
    #: COCO at IoU 0.5.
    ap50: float | None
    #: None also where every image has the class.
    auroc: float | None


class MissingClass(_Numbers):
    """A class of the dataset that the model does not know; it is in no mean."""

    name: str
    #: True boxes in the evaluated images.
    boxes: int
    #: The class of the model with the most similar name; None where none is similar.
    closest: str | None


class NormalPoint(_Numbers):
    """Detections on normal films from one score on."""

    threshold: float
    #: Per normal film.
    false_positives: float
    #: Share of the normal films with at least one.
    films_marked: float


class FrocPoint(_Numbers):
    """Sensitivity at one number of false positives an image."""

    false_positives: float
    lesions: Estimate
    images: Estimate
    #: Lesions found by a detection of any class, with false positives counted likewise.
    lesions_any_class: float | None
    #: The lowest score that keeps to the number; None where not even the highest does.
    threshold: float | None


class ReliabilityBin(_Numbers):
    """Detections by score; see `calibration`."""

    low: float
    high: float
    detections: int
    mean_score: float | None
    precision: float | None


class Summary(_Numbers):
    """The numbers of one evaluation; nothing that they are not defined for is left out or counted as 0."""

    images: int
    patients: int
    images_with_findings: int
    boxes: int
    detections: int
    #: Of the detections that were looked at.
    score_threshold: float
    iou_above: float
    confidence: float
    bootstrap_samples: int
    seed: int

    #: Kaggle's VinBigData metric over the dataset's classes.
    map40: Estimate
    #: The same with "No finding" as one class more.
    map40_with_no_finding: float | None
    no_finding_ap40: float | None
    #: COCO's twelve statistics.
    coco: dict[str, float | None]
    coco_ap: Estimate
    coco_ap50: Estimate
    #: Mean of the lesion sensitivities at the seven rates.
    froc_mean: Estimate
    froc: tuple[FrocPoint, ...]
    #: Of images with any finding against those without.
    auroc: Estimate
    #: Expected calibration error of detection scores.
    ece: float | None
    reliability: tuple[ReliabilityBin, ...]
    categories: tuple[CategoryScores, ...]
    #: Names of the classes without a true box; they are in no mean.
    absent: tuple[str, ...]
    #: Classes of the dataset that the model does not know; they are in no mean, and not among `categories`.
    missing: tuple[MissingClass, ...] = ()
    #: False positives on films without a true box; empty where there is no such film.
    normal_films: tuple[NormalPoint, ...] = ()
    #: Scores from which detections count in `confusion`: those of one false positive an image.
    operating_threshold: float
    #: True classes (rows) by detected class (columns), in the order of `categories`, then background.
    confusion: tuple[tuple[int, ...], ...]


def summarise(
    material: EvaluationSet,
    *,
    bootstrap_samples: int,
    seed: int,
    score_threshold: float = 0.001,
    iou_above: float = IOU_ABOVE,
    missing: Sequence[MissingClass] = (),
    progress: Progress = lambda _: None,
) -> Summary:
    """Compute every metric of a set; the same set and seed give the same numbers, whatever the order of images.

    `score_threshold` says from which score the material holds detections; lower ones are dropped here. `missing` are
    the classes that are left out of the material. `progress` is told the number of resamples done since it was last
    told.
    """
    material = material.above(score_threshold)
    flat = material.flat
    claims = match_voc(flat, iou_above)
    voc, coco = evaluate_voc(material, iou_above), evaluate_coco(material)
    froc = trace_froc(flat, claims)
    intervals = bootstrap(material, bootstrap_samples, seed, iou_above=iou_above, progress=progress)
    calibration = calibrate(flat.scores, claims != NONE)
    no_finding = no_finding_ap(material)
    operating = choose_threshold(froc, score_threshold)
    normal_thresholds = [threshold for threshold in THRESHOLDS if threshold >= score_threshold] or [score_threshold]
    return Summary(
        images=flat.images,
        patients=len(np.unique(material.groups)),
        images_with_findings=int(flat.abnormal.sum()),
        boxes=len(flat.true_class_of),
        detections=len(flat.scores),
        score_threshold=score_threshold,
        iou_above=iou_above,
        confidence=CONFIDENCE,
        bootstrap_samples=bootstrap_samples,
        seed=seed,
        map40=_estimate(voc.mean_ap, intervals.get("map")),
        map40_with_no_finding=mean_of_present([*voc.ap_by_category.values(), no_finding]),
        no_finding_ap40=no_finding,
        coco=coco.statistics,
        coco_ap=_estimate(coco.statistics["AP"], intervals.get("coco_ap")),
        coco_ap50=_estimate(coco.statistics["AP50"], intervals.get("coco_ap50")),
        froc_mean=_estimate(float(np.mean(froc.lesions_at())) if froc else None, intervals.get("froc_mean")),
        froc=_read_froc(froc, trace_froc(flat, match_voc(flat, iou_above, by_class=False)), intervals),
        auroc=_estimate(any_finding_auroc(flat), intervals.get("auroc")),
        ece=calibration.ece,
        reliability=_read_reliability(calibration),
        categories=_read_categories(material, voc, coco, intervals),
        absent=tuple(category.name for category in material.categories if voc.ap_by_category[category.id] is None),
        missing=tuple(missing),
        normal_films=tuple(NormalPoint(**vars(rate)) for rate in count_on_normals(flat, normal_thresholds)),
        operating_threshold=operating,
        confusion=tuple(tuple(row) for row in count_confusions(flat, operating, iou_above).tolist()),
    )


def choose_threshold(froc: Froc | None, score_threshold: float, rate: float = 1.0) -> float:
    """Return the lowest score that keeps to one false positive an image; just above all scores where none does.

    Without true boxes there is no curve, and every detection counts: `score_threshold`.
    """
    if froc is None or not len(froc.thresholds):
        return score_threshold
    threshold = froc.threshold_at(rate)
    return float(np.nextafter(froc.thresholds[0], np.inf)) if threshold is None else threshold


def _estimate(value: float | None, interval: Interval | None) -> Estimate:
    if interval is None:
        return Estimate(value=value)
    return Estimate(value=value, low=interval.low, high=interval.high)


def _read_froc(
    froc: Froc | None, any_class: Froc | None, intervals: dict[str, Interval | None]
) -> tuple[FrocPoint, ...]:
    lesions = froc.lesions_at() if froc else [None] * len(RATES)
    images = froc.images_at() if froc else [None] * len(RATES)
    any_lesions = any_class.lesions_at() if any_class else [None] * len(RATES)
    return tuple(
        FrocPoint(
            false_positives=rate,
            lesions=_estimate(lesion, intervals.get(f"lesions_{rate:g}")),
            images=_estimate(image, intervals.get(f"images_{rate:g}")),
            lesions_any_class=any_lesion,
            threshold=froc.threshold_at(rate) if froc else None,
        )
        for rate, lesion, image, any_lesion in zip(RATES, lesions, images, any_lesions, strict=True)
    )


def _read_reliability(calibration: Calibration) -> tuple[ReliabilityBin, ...]:
    return tuple(
        ReliabilityBin(
            low=row.low, high=row.high, detections=row.detections, mean_score=row.mean_score, precision=row.precision
        )
        for row in calibration.bins
    )


def _read_categories(
    material: EvaluationSet, voc: Evaluation, coco: CocoScores, intervals: dict[str, Interval | None]
) -> tuple[CategoryScores, ...]:
    flat = material.flat
    detections = np.bincount(flat.class_of, minlength=flat.classes).tolist()
    scores = []
    for number, category in enumerate(material.categories):
        boxes = flat.boxes_by_image(number)
        ap40 = _estimate(voc.ap_by_category[category.id], intervals.get(f"ap_{number}"))
        scores.append(
            CategoryScores(
                id=category.id,
                name=category.name,
                boxes=int(boxes.sum()),
                images=int(np.count_nonzero(boxes)),
                detections=detections[number],
                ap40=ap40.value,
                ap40_low=ap40.low,
                ap40_high=ap40.high,
                ap=coco.ap_by_category[category.id],
                ap50=coco.ap50_by_category[category.id],
                auroc=category_auroc(flat, number),
            )
        )
    return tuple(scores)
