"""How good the probability of any finding is: calibration, net benefit, and its effect on the scores of boxes."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from trainer.evaluation.calibration import Calibration, calibrate
from trainer.evaluation.flat import Reals
from trainer.evaluation.material import EvaluationSet
from trainer.evaluation.voc import evaluate_voc

#: Exponents that are compared; 0 leaves the scores of boxes as they are.
EXPONENTS = (0.0, 0.125, 0.25, 0.5, 1.0, 2.0)
#: Threshold probabilities of the decision curve.
DECISIONS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
#: Probabilities below this count as this, because scores are divided by powers of them.
_LEAST = 1e-6


@dataclass(frozen=True)
class NetBenefit:
    """The value of reading only images with at least one probability, in true positives per image.

    A false positive costs t / (1 - t) true positives, where t is the threshold (Vickers and Elkin 2006,
    10.1177/0272989X06295361). Reading no image has the value 0.
    """

    threshold: float
    model: float
    #: Of reading all images.
    all_images: float


@dataclass(frozen=True)
class ExponentScore:
    """Mean AP@0.4 if the scores of boxes are multiplied by the probability to this power."""

    exponent: float
    map40: float | None


@dataclass(frozen=True)
class AbnormalityScores:
    """The scores of the probabilities of all images."""

    #: Mean squared distance of the probability from the truth, 0 or 1 (Brier 1950).
    brier: float
    calibration: Calibration
    net_benefit: tuple[NetBenefit, ...]
    by_exponent: tuple[ExponentScore, ...]


def score_abnormality(material: EvaluationSet, exponent: float) -> AbnormalityScores | None:
    """Score the probabilities of a set; None if the model has no abnormality head or there is no image.

    `exponent` is the one that the scores of boxes contain already: the card's.
    """
    flat = material.flat
    if flat.abnormality is None or not flat.images:
        return None
    compared = sorted({*EXPONENTS, exponent})
    return AbnormalityScores(
        brier=float(np.mean((flat.abnormality - flat.abnormal) ** 2)),
        calibration=calibrate(flat.abnormality, flat.abnormal),
        net_benefit=tuple(_net_benefit(flat.abnormality, flat.abnormal, threshold) for threshold in DECISIONS),
        by_exponent=tuple(
            ExponentScore(other, evaluate_voc(weigh_scores(material, other - exponent)).mean_ap) for other in compared
        ),
    )


def weigh_scores(material: EvaluationSet, exponent: float) -> EvaluationSet:
    """Return the set with the scores of boxes multiplied by their image's probability to the power `exponent`."""
    return material.with_found(
        {
            image_id: boxes
            if boxes.abnormality is None
            else replace(boxes, scores=boxes.scores * max(boxes.abnormality, _LEAST) ** exponent)
            for image_id, boxes in material.found.items()
        }
    )


def _net_benefit(probabilities: Reals, abnormal: NDArray[np.bool_], threshold: float) -> NetBenefit:
    odds = threshold / (1 - threshold)
    share = float(np.mean(abnormal))
    read = probabilities >= threshold
    hits, alarms = np.mean(read & abnormal), np.mean(read & ~abnormal)
    return NetBenefit(threshold, float(hits - alarms * odds), share - (1 - share) * odds)
