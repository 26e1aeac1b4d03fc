"""Fit how readers draw each class of lesion in a table of their boxes.

    python -m deploy.tools.fit_reader_figures LABELS.csv[.gz] shared/phantoms/readers.json

The simulated readers of `shared.phantoms.readers` follow these few figures; no row of the table is kept.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shared.detector.boxes import iou
from shared.training.dataset_source import Consensus
from trainer.datasets.annotations import AnnotatedImage, Annotations, Box, Xyxy
from trainer.datasets.consensus import agree
from trainer.datasets.reader_model import fit_readers
from trainer.datasets.vinbigdata import read_table

Reals = NDArray[np.float64]

#: Boxes of one class with a larger IoU are one finding; boxes of two classes with a larger IoU are one confusion.
SAME_IOU, CONFUSED_IOU = 0.3, 0.4


def fit(annotations: Annotations) -> list[dict[str, object]]:
    """Fit one entry per class, by id, to images with three readers.

    `seen_by` is the number of findings that one, two and three readers drew, per image with a box. `together` is the
    mean number of findings of the class on an image that has one; only findings of several readers count. `offset`
    and `stretch` are the standard deviations of a box from the mean of the readers: of its centre, as shares of its
    width and height, and of the logarithms of its width and height. `confused` is the probability, by class, that a
    reader who does not draw a finding draws it as another class.
    """
    agreed = agree(annotations, Consensus(iou=SAME_IOU))
    model = fit_readers(agreed)
    assert model is not None, "the table has no image with three readers"
    pairs = [(drawn, fused) for drawn, fused in zip(annotations.images, agreed.images, strict=True) if fused.boxes]
    figures: list[dict[str, object]] = []
    for category in annotations.categories:
        found = [[box for box in fused.boxes if box.category_id == category.id] for _, fused in pairs]
        counts = np.bincount([len(box.readers) for boxes in found for box in boxes], minlength=4)[1:4]
        several = [[box for box in boxes if len(box.readers) > 1] for boxes in found]
        offsets = [_deviations(image, boxes) for (image, _), boxes in zip(pairs, several, strict=True) if boxes]
        spread = np.sqrt(np.mean(np.concatenate(offsets) ** 2, axis=0))
        figures.append(
            {
                "class_id": category.id,
                "detection": round(model.classes[category.id].mean_detection, 4),
                "seen_by": (counts / len(pairs)).round(4).tolist(),
                "together": round(float(np.mean([len(boxes) for boxes in several if boxes])), 3),
                "offset": spread[:2].round(4).tolist(),
                "stretch": spread[2:].round(4).tolist(),
                "confused": _confusions([image for image, _ in pairs], several, [c.id for c in annotations.categories]),
            }
        )
    return figures


def _deviations(image: AnnotatedImage, findings: Iterable[Box]) -> Reals:
    """Return each drawn box's deviation from the mean of its finding: x, y, width, height; [n, 4]."""
    rows = []
    for finding in findings:
        drawn = [
            box
            for box in image.boxes
            if box.category_id == finding.category_id and _overlap(box.xyxy_px, [finding.xyxy_px])[0] > SAME_IOU
        ]
        readers = {reader for box in drawn for reader in box.readers}
        if len(drawn) != len(readers) or len(drawn) < 2:
            continue
        corners = np.array([box.xyxy_px for box in drawn])
        centres, sizes = (corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]
        shifts = (centres - centres.mean(axis=0)) / sizes.mean(axis=0)
        stretches = np.log(sizes) - np.log(sizes).mean(axis=0)
        # The mean of the few readers is nearer to their boxes than the true box is.
        rows.append(np.hstack((shifts, stretches)) * np.sqrt(len(drawn) / (len(drawn) - 1)))
    return np.concatenate(rows) if rows else np.empty((0, 4))


def _confusions(
    images: Sequence[AnnotatedImage], several: Sequence[Sequence[Box]], ids: Sequence[int]
) -> dict[str, float]:
    """Return, by class, how often a reader who missed a finding of several readers drew another class there."""
    chances, drawn = 0, defaultdict[int, int](int)
    for image, findings in zip(images, several, strict=True):
        for finding in findings:
            for reader in set(image.readers) - set(finding.readers):
                own = [box for box in image.boxes if reader in box.readers and box.category_id != finding.category_id]
                overlaps = _overlap(finding.xyxy_px, [box.xyxy_px for box in own])
                chances += 1
                if len(own) and overlaps.max() > CONFUSED_IOU:
                    drawn[own[int(overlaps.argmax())].category_id] += 1
    return {str(id_): round(drawn[id_] / chances, 4) for id_ in ids if drawn[id_]}


def _overlap(one: Xyxy, others: Sequence[Xyxy]) -> Reals:
    return np.asarray(iou(np.array([one], np.float32), np.array(others, np.float32).reshape(-1, 4))[0])


def main() -> None:
    """Read the table, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labels", type=Path, help="the table, CSV or gzipped CSV")
    parser.add_argument("figures", type=Path, help="the JSON file to write")
    arguments = parser.parse_args()
    entries = ",\n".join("  " + json.dumps(entry) for entry in fit(read_table(arguments.labels.read_bytes())))
    arguments.figures.write_text(f"[\n{entries}\n]\n")


if __name__ == "__main__":
    main()
