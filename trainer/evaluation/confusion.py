"""Confusion matrix of classes: true boxes against the detections that overlap them."""

import numpy as np
from numpy.typing import NDArray

from trainer.evaluation.flat import Flat, overlap
from trainer.evaluation.matching import IOU_ABOVE, NONE, claim, of_one_class


def count_confusions(flat: Flat, score_threshold: float) -> NDArray[np.int64]:
    """Count true classes (rows) by detected class (columns), [classes + 1, classes + 1]; the last one is background.

    Detections at or above the threshold are first matched to true boxes of their own class, as in `match_voc`. The
    remaining detections and true boxes are matched in the same way without regard to class. True boxes that are still
    unmatched are missed; unmatched detections are false positives.
    """
    pairs = overlap(flat, IOU_ABOVE)
    pairs = pairs.where(flat.scores[pairs.detection] >= score_threshold)
    claims = claim(pairs.where(of_one_class(flat, pairs)), len(flat.scores))
    rest = pairs.where((claims[pairs.detection] == NONE) & ~np.isin(pairs.true, claims))
    claims = np.maximum(claims, claim(rest, len(flat.scores)))

    background = flat.classes
    matrix = np.zeros((background + 1, background + 1), np.int64)
    matched = claims != NONE
    np.add.at(matrix, (flat.true_class_of[claims[matched]], flat.class_of[matched]), 1)
    missed = np.setdiff1d(np.arange(len(flat.true_class_of)), claims)
    matrix[:, background] = np.bincount(flat.true_class_of[missed], minlength=background + 1)
    alarms = ~matched & (flat.scores >= score_threshold)
    matrix[background] = np.bincount(flat.class_of[alarms], minlength=background + 1)
    return matrix
