"""All numbers of an evaluation: stored with it, returned by the API, shown in its report."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from trainer.evaluation.abnormality import AbnormalityScores, score_abnormality
from trainer.evaluation.auroc import any_finding_auroc, category_auroc
from trainer.evaluation.bootstrap import CONFIDENCE, Interval, Progress, bootstrap
from trainer.evaluation.calibration import calibrate
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
    """A metric and its interval; None if undefined."""

    value: float | None
    low: float | None = None
    high: float | None = None


class CategoryScores(_Numbers):
    """The scores of one class; average precisions are None if it has no true box."""

    id: int
    name: str
    boxes: int
    #: Images with a true box of the class.
    images: int
    detections: int
    #: VOC 2010 at IoU > 0.4, and its interval. The interval is None without a value, and in older evaluations.
    ap40: float | None
    ap40_low: float | None = None
    ap40_high: float | None = None
    #: COCO, mean over IoU 0.5 to 0.95.
    ap: float | None
    #: COCO at IoU 0.5.
    ap50: float | None
    #: Also None if all images have the class.
    auroc: float | None


class MissingClass(_Numbers):
    """A class of the dataset that the model does not know; excluded from all means."""

    name: str
    #: True boxes in the evaluated images.
    boxes: int
    #: The class of the model with the most similar name; None if there is no similar name.
    closest: str | None


class NormalPoint(_Numbers):
    """Detections in normal images with at least one score."""

    threshold: float
    #: Per normal image.
    false_positives: float
    #: Share of the normal images with at least one.
    films_marked: float


class FrocPoint(_Numbers):
    """Sensitivity at a number of false positives per image."""

    false_positives: float
    lesions: Estimate
    images: Estimate
    #: Lesions found by a detection of any class, with false positives counted in the same way.
    lesions_any_class: float | None
    #: The lowest score that does not exceed the number; None if even the highest score exceeds it.
    threshold: float | None


class ReliabilityBin(_Numbers):
    """Detections by score; see `calibration`."""

    low: float
    high: float
    detections: int
    mean_score: float | None
    precision: float | None


class HumanReference(_Numbers):
    """Readers of the evaluated split against each other, over the evaluated classes; see `datasets.human`."""

    #: Images with several readers.
    images: int
    #: A held out reader against the consensus of the others: without and with "No finding".
    one_reader: float | None
    one_reader_with_no_finding: float | None
    #: The consensus of the others, ranked by agreement, against the held out reader.
    others: float | None


class ProbabilityBin(_Numbers):
    """Images by the probability of any finding; see `calibration`."""

    low: float
    high: float
    images: int
    mean_probability: float | None
    #: Share of the images with a true box.
    abnormal: float | None


class NetBenefitPoint(_Numbers):
    """A point of the decision curve; see `abnormality.NetBenefit`."""

    threshold: float
    model: float
    all_images: float


class ExponentPoint(_Numbers):
    """The effect of the probability on the scores of boxes; see `abnormality.ExponentScore`."""

    exponent: float
    map40: float | None


class AbnormalityNumbers(_Numbers):
    """How good the probability of any finding is; `auroc` and `no_finding_ap40` are also computed from it."""

    #: The exponent of the evaluated model.
    exponent: float
    brier: float
    #: Expected calibration error.
    ece: float | None
    reliability: tuple[ProbabilityBin, ...]
    net_benefit: tuple[NetBenefitPoint, ...]
    by_exponent: tuple[ExponentPoint, ...]


class Summary(_Numbers):
    """The numbers of one evaluation. An undefined number is None, never left out or counted as 0."""

    images: int
    patients: int
    images_with_findings: int
    boxes: int
    detections: int
    #: Minimum score of the evaluated detections.
    score_threshold: float
    iou_above: float
    confidence: float
    bootstrap_samples: int
    seed: int

    #: Kaggle's VinBigData metric over the dataset's classes.
    map40: Estimate
    #: The same with "No finding" as an additional class, as the challenge scores it, and its interval. The interval is
    #: None without a value, and in older evaluations.
    map40_with_no_finding: float | None
    map40_with_no_finding_low: float | None = None
    map40_with_no_finding_high: float | None = None
    no_finding_ap40: float | None
    #: COCO's twelve statistics.
    coco: dict[str, float | None]
    coco_ap: Estimate
    coco_ap50: Estimate
    #: Mean of the lesion sensitivities at the seven rates.
    froc_mean: Estimate
    froc: tuple[FrocPoint, ...]
    #: AUROC of images with any finding against images without one.
    auroc: Estimate
    #: Expected calibration error of detection scores.
    ece: float | None
    reliability: tuple[ReliabilityBin, ...]
    #: None if the model has no abnormality head, and in older evaluations.
    abnormality: AbnormalityNumbers | None = None
    categories: tuple[CategoryScores, ...]
    #: Names of the classes without a true box; excluded from all means.
    absent: tuple[str, ...]
    #: Classes of the dataset that the model does not know; excluded from all means and from `categories`.
    missing: tuple[MissingClass, ...] = ()
    #: None unless the dataset has the boxes of several readers; None in older evaluations.
    human: HumanReference | None = None
    #: False positives in images without a true box; empty if there is no such image.
    normal_films: tuple[NormalPoint, ...] = ()
    #: Minimum score of the detections in `confusion`: the threshold for one false positive per image.
    operating_threshold: float
    #: True classes (rows) by detected class (columns), in the order of `categories`, then background.
    confusion: tuple[tuple[int, ...], ...]


def summarise(
    material: EvaluationSet,
    *,
    bootstrap_samples: int,
    seed: int,
    score_threshold: float = 0.001,
    missing: Sequence[MissingClass] = (),
    human: Mapping[str, Any] | None = None,
    abnormality_exponent: float | None = None,
    progress: Progress = lambda _: None,
) -> Summary:
    """Compute all metrics of a set. The same set and seed give the same numbers, in any order of the images.

    `score_threshold` is the minimum score of the evaluated detections; lower ones are dropped. `missing` are the
    classes that the material does not contain. `human` are the scores of the split's readers, as `datasets.human`
    returns them. `abnormality_exponent` is the card's. `progress` is called with the number of resamples finished since
    its last call.
    """
    material = material.above(score_threshold)
    flat = material.flat
    claims = match_voc(flat)
    voc, coco = evaluate_voc(material), evaluate_coco(material)
    froc = trace_froc(flat, claims)
    intervals = bootstrap(material, bootstrap_samples, seed, progress=progress)
    calibration = calibrate(flat.scores, claims != NONE)
    no_finding = no_finding_ap(material)
    with_no_finding = _estimate(
        mean_of_present([*voc.ap_by_category.values(), no_finding]), intervals.get("map_with_no_finding")
    )
    operating = choose_threshold(froc, score_threshold)
    normal_thresholds = [threshold for threshold in THRESHOLDS if threshold >= score_threshold] or [score_threshold]
    return Summary(
        images=flat.images,
        patients=len(np.unique(material.groups)),
        images_with_findings=int(flat.abnormal.sum()),
        boxes=len(flat.true_class_of),
        detections=len(flat.scores),
        score_threshold=score_threshold,
        iou_above=IOU_ABOVE,
        confidence=CONFIDENCE,
        bootstrap_samples=bootstrap_samples,
        seed=seed,
        map40=_estimate(voc.mean_ap, intervals.get("map")),
        map40_with_no_finding=with_no_finding.value,
        map40_with_no_finding_low=with_no_finding.low,
        map40_with_no_finding_high=with_no_finding.high,
        no_finding_ap40=no_finding,
        coco=coco.statistics,
        coco_ap=_estimate(coco.statistics["AP"], intervals.get("coco_ap")),
        coco_ap50=_estimate(coco.statistics["AP50"], intervals.get("coco_ap50")),
        froc_mean=_estimate(float(np.mean(froc.lesions_at())) if froc else None, intervals.get("froc_mean")),
        froc=_read_froc(froc, trace_froc(flat, match_voc(flat, by_class=False)), intervals),
        auroc=_estimate(any_finding_auroc(flat), intervals.get("auroc")),
        ece=calibration.ece,
        reliability=tuple(ReliabilityBin(**vars(row)) for row in calibration.bins),
        abnormality=_read_abnormality(score_abnormality(material, abnormality_exponent or 0.0), abnormality_exponent),
        categories=_read_categories(material, voc, coco, intervals),
        absent=tuple(category.name for category in material.categories if voc.ap_by_category[category.id] is None),
        missing=tuple(missing),
        human=_read_human(human, [str(category.id) for category in material.categories]) if human else None,
        normal_films=tuple(NormalPoint(**vars(rate)) for rate in count_on_normals(flat, normal_thresholds)),
        operating_threshold=operating,
        confusion=tuple(tuple(row) for row in count_confusions(flat, operating).tolist()),
    )


def choose_threshold(froc: Froc | None, score_threshold: float, rate: float = 1.0) -> float:
    """Return the lowest score with at most one false positive per image, else a value just above all scores.

    Without true boxes there is no curve, and all detections count: `score_threshold`.
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


def _read_abnormality(scores: AbnormalityScores | None, exponent: float | None) -> AbnormalityNumbers | None:
    if scores is None:
        return None
    return AbnormalityNumbers(
        exponent=exponent or 0.0,
        brier=scores.brier,
        ece=scores.calibration.ece,
        reliability=tuple(
            ProbabilityBin(
                low=row.low,
                high=row.high,
                images=row.detections,
                mean_probability=row.mean_score,
                abnormal=row.precision,
            )
            for row in scores.calibration.bins
        ),
        net_benefit=tuple(NetBenefitPoint(**vars(point)) for point in scores.net_benefit),
        by_exponent=tuple(ExponentPoint(**vars(point)) for point in scores.by_exponent),
    )


def _read_human(scores: Mapping[str, Any], ids: Sequence[str]) -> HumanReference:
    one_reader = [scores["one_reader"].get(id_) for id_ in ids]
    return HumanReference(
        images=scores["images"],
        one_reader=mean_of_present(one_reader),
        one_reader_with_no_finding=mean_of_present([*one_reader, scores["no_finding"]]),
        others=mean_of_present([scores["others"].get(id_) for id_ in ids]),
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
