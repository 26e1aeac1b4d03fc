"""What the abnormality head gains on real films: cross-validation within the training images of the NIH/RSNA set.

The exponent for a fold is the best one on the other folds. The reference is the same detector with the scores of its
boxes as they are, and with "No finding" by the highest score. Takes the better part of an hour on a CPU.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from shared.training.recipes import SMALL_SET
from shared.version import RENDITION_VERSION
from tests.bench.figure import Figure
from tests.bench.recipes import DATA, LUNG_OPACITY, SAMPLES, images_of, train_and_detect
from trainer.datasets.dataset import Dataset
from trainer.evaluation.abnormality import EXPONENTS, weigh_scores
from trainer.evaluation.auroc import any_finding_auroc
from trainer.evaluation.boxes import Boxes
from trainer.evaluation.material import EvaluationSet
from trainer.evaluation.paired import paired_gain
from trainer.evaluation.voc import evaluate_voc, no_finding_ap

FOLDS = 3
CONFIG = SMALL_SET.model_copy(update={"abnormality_loss": 0.2, "abnormality_exponent": 0.0, "epochs": 8})


def measure() -> Iterator[Figure]:
    """Train a model for each fold on the others, and pool what the models detect in images that they have not seen."""
    if not DATA.is_dir():
        return
    images = images_of("train")
    patients = sorted({image.patient or "" for image in images})
    np.random.default_rng(0).shuffle(patients)
    fold_of = {patient: number % FOLDS for number, patient in enumerate(patients)}
    parts = []
    for fold in range(FOLDS):
        split = tuple(
            replace(image, split="val" if fold_of[image.patient or ""] == fold else "train") for image in images
        )
        dataset = Dataset("nih-rsna", "0" * 64, RENDITION_VERSION, (LUNG_OPACITY,), split)
        parts.append(train_and_detect(f"abnormality-{fold}", CONFIG, dataset))
    bare, weighed, chosen = [], [], []
    for fold, part in enumerate(parts):
        others = _pool([other for number, other in enumerate(parts) if number != fold])
        best = max(EXPONENTS, key=lambda exponent: evaluate_voc(weigh_scores(others, exponent)).mean_ap or 0)
        chosen.append(best)
        weighed.append(weigh_scores(part, best))
        bare.append(part)
    with_head, without = _pool(weighed), _without_probability(_pool(bare))
    for fold, best in enumerate(chosen):
        yield Figure(f"exponent chosen for fold {fold}", best)
    for exponent in EXPONENTS:
        yield Figure(
            f"AP@0.4 with exponent {exponent:g}", evaluate_voc(weigh_scores(_pool(bare), exponent)).mean_ap or 0
        )
    for what, with_no_finding in (("AP@0.4", False), ("AP@0.4 with No finding", True)):
        gain = paired_gain(without, with_head, samples=SAMPLES, seed=0, with_no_finding=with_no_finding)
        yield Figure(f"gain in {what} [{gain.low:.3f}, {gain.high:.3f}]", gain.gain)
        yield Figure(f"{what} without the head", gain.active_map or 0)
    for name, material in (("with", with_head), ("without", without)):
        yield Figure(f"AUROC of images, {name} the head", any_finding_auroc(material.flat) or 0)
        yield Figure(f"AP@0.4 of No finding, {name} the head", no_finding_ap(material) or 0)


def _pool(parts: list[EvaluationSet]) -> EvaluationSet:
    first = parts[0]
    return EvaluationSet(
        tuple(image_id for part in parts for image_id in part.image_ids),
        tuple(patient for part in parts for patient in part.patients),
        first.categories,
        {image_id: boxes for part in parts for image_id, boxes in part.truth.items()},
        {image_id: boxes for part in parts for image_id, boxes in part.found.items()},
    )


def _without_probability(material: EvaluationSet) -> EvaluationSet:
    found: dict[int, Boxes] = {image_id: replace(boxes, abnormality=None) for image_id, boxes in material.found.items()}
    return material.with_found(found)
