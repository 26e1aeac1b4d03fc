"""Combines the boxes of several readers: weighted boxes fusion, non-maximum suppression, or all boxes unchanged.

Most solutions of the VinBigData challenge fused its training boxes by WBF at an IoU of 0.4 to 0.5, and kept boxes that
only one reader had drawn; these are also the defaults here. Boxes of radiologists have no score, so all have the same
weight.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from ensemble_boxes.ensemble_boxes_wbf import find_matching_box_fast, get_weighted_box
from numpy.typing import NDArray

from shared.detector.boxes import iou
from shared.training.dataset_source import Consensus
from trainer.datasets.annotations import AnnotatedImage, Annotations, Box, MalformedAnnotations
from trainer.datasets.notes import Notes

#: An image that none of the selected readers has read.
UNREAD = "image_unread"
#: A finding that too few readers have drawn.
TOO_FEW_READERS = "finding_of_too_few_readers"


@dataclass(frozen=True)
class _Finding:
    """One box for several members, given as indices of the input boxes."""

    xyxy_px: NDArray[np.float64]  # [4]
    members: tuple[int, ...]


def listen(annotations: Annotations, consensus: Consensus) -> Annotations:
    """Keep the boxes of the selected readers. Images that none of them has read are left out and noted.

    Raises `MalformedAnnotations` if the consensus names unknown readers, or needs readers that the boxes do not state.
    """
    known = {reader for image in annotations.images for reader in image.readers}
    unknown = set(consensus.readers or ()) - known
    if unknown:
        raise MalformedAnnotations(f"The annotations know no reader {', '.join(sorted(unknown))}.")
    anonymous = any(not box.readers for image in annotations.images for box in image.boxes)
    if anonymous and (consensus.method != "none" or consensus.readers is not None):
        raise MalformedAnnotations("A consensus needs to know who drew each box: some annotations have no `readers`.")
    if consensus.readers is None:
        return annotations
    chosen = frozenset(consensus.readers)
    heard = [_heard(image, chosen) for image in annotations.images if chosen.intersection(image.readers)]
    notes = Notes.of(annotations)
    notes.add(UNREAD, count=len(annotations.images) - len(heard))
    return notes.onto(replace(annotations, images=tuple(heard)))


def agree(annotations: Annotations, consensus: Consensus) -> Annotations:
    """Apply a consensus to the boxes of each image. Each resulting box keeps the readers who drew it.

    The result does not depend on the order of the input boxes.
    """
    images, notes = [], Notes.of(annotations)
    for image in annotations.images:
        boxes = _agree_on_image(image.boxes, consensus)
        kept = tuple(box for box in boxes if consensus.method == "none" or len(box.readers) >= consensus.min_readers)
        notes.add(TOO_FEW_READERS, count=len(boxes) - len(kept))
        images.append(replace(image, boxes=kept))
    return notes.onto(replace(annotations, images=tuple(images)))


def _heard(image: AnnotatedImage, chosen: frozenset[str]) -> AnnotatedImage:
    boxes = tuple(
        replace(box, readers=tuple(reader for reader in box.readers if reader in chosen))
        for box in image.boxes
        if chosen.intersection(box.readers)
    )
    return replace(image, boxes=boxes, readers=tuple(reader for reader in image.readers if reader in chosen))


def _agree_on_image(boxes: Sequence[Box], consensus: Consensus) -> list[Box]:
    ordered = sorted(boxes, key=lambda box: (box.category_id, box.xyxy_px, box.readers))
    if consensus.method == "none":
        return ordered
    of_class: defaultdict[int, list[Box]] = defaultdict(list)
    for box in ordered:
        of_class[box.category_id].append(box)
    find = _fuse if consensus.method == "wbf" else _suppress
    found = []
    for category_id, drawn in of_class.items():
        corners = np.array([box.xyxy_px for box in drawn])
        for finding in find(corners, consensus.iou):
            readers = {reader for member in finding.members for reader in drawn[member].readers}
            left, top, right, bottom = finding.xyxy_px.tolist()
            found.append(Box(category_id, (left, top, right, bottom), tuple(sorted(readers))))
    return sorted(found, key=lambda box: (box.category_id, box.xyxy_px, box.readers))


def _fuse(corners: NDArray[np.float64], threshold: float) -> list[_Finding]:
    """Weighted boxes fusion of the boxes [n, 4] of one class.

    `ensemble_boxes.weighted_boxes_fusion` does not return which boxes were fused. Therefore its steps are repeated here
    in the same order: each box joins the fused box that it overlaps most, if the overlap is above the threshold, and
    moves this box to the mean of its members.
    """
    # Rows as in the library: class, score, weight, reader, x, y, x, y.
    rows = np.hstack((np.broadcast_to((0.0, 1.0, 1.0, 0.0), (len(corners), 4)), corners))
    fused = np.empty((0, 8))
    members: list[list[int]] = []
    for number, row in enumerate(rows):
        best, _ = find_matching_box_fast(fused, row, threshold)
        if best == -1:
            members.append([number])
            fused = np.vstack((fused, row))
        else:
            members[best].append(number)
            fused[best] = get_weighted_box([rows[member] for member in members[best]])
    return [_Finding(row[4:], tuple(joined)) for row, joined in zip(fused, members, strict=True)]


def _suppress(corners: NDArray[np.float64], threshold: float) -> list[_Finding]:
    """Non-maximum suppression of the boxes [n, 4] of one class; the score of a box is its overlap with all others."""
    overlaps = iou(corners.astype(np.float32), corners.astype(np.float32))
    scores = np.where(overlaps > threshold, overlaps, 0).sum(axis=1).round(9)
    left = list(np.argsort(-scores, kind="stable"))
    findings = []
    while left:
        best = left[0]
        members = [number for number in left if number == best or overlaps[best, number] > threshold]
        findings.append(_Finding(corners[best], tuple(int(number) for number in members)))
        left = [number for number in left if number not in members]
    return findings
