"""The annotated boxes that a family learns from, and their match with anchors or regions."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.models.detection._utils import Matcher
from torchvision.ops import box_iou

#: A background anchor or region with at least this overlap with an ignored box is no background.
IGNORED_IOU = 0.3
#: Boxes with at least this overlap are names of one place.
SAME_PLACE_IOU = 0.4
#: Values of a match that is not the index of a box.
BACKGROUND, IGNORED = Matcher.BELOW_LOW_THRESHOLD, Matcher.BETWEEN_THRESHOLDS


@dataclass(frozen=True)
class Targets:
    """The boxes of one image."""

    boxes: Tensor  # float32 [n, 4] xyxy in canvas pixels
    labels: Tensor  # int64 [n], from 1
    #: In 0–1. It weights the losses of the box or, if classes are scored independently, is the target of its class.
    #: With 0, the box is a region to ignore: neither a finding nor background.
    confidences: Tensor  # float32 [n]

    def split(self) -> tuple["Targets", Tensor]:
        """Return the boxes that count, and the boxes to ignore, [m, 4]."""
        counts = self.confidences > 0
        kept = Targets(self.boxes[counts], self.labels[counts], self.confidences[counts])
        return kept, self.boxes[~counts]

    def match(self, candidates: Tensor, matcher: Matcher) -> Tensor:
        """Return the index of the counting box of each candidate box [k, 4], `BACKGROUND` or `IGNORED`: int64 [k]."""
        counting, ignored = self.split()
        if len(counting.boxes):
            match: Tensor = matcher(box_iou(counting.boxes, candidates))
        else:
            match = candidates.new_full((len(candidates),), BACKGROUND, dtype=torch.int64)
        if len(ignored):
            near = box_iou(ignored, candidates).amax(dim=0) >= IGNORED_IOU
            match = match.where(~(near & (match == BACKGROUND)), IGNORED)
        return match

    def soft_classes(self, outputs: int) -> Tensor:
        """Return the target of each output for each counting box, float32 [n, outputs]; that of output 0 is 0.

        A place that boxes of several classes overlap has the confidence of each of them.
        """
        counting, _ = self.split()
        same = box_iou(counting.boxes, counting.boxes) >= SAME_PLACE_IOU
        same |= torch.eye(len(same), dtype=torch.bool, device=same.device)
        rows = counting.confidences.new_zeros((len(same), len(same), outputs))
        rows[:, torch.arange(len(same)), counting.labels] = counting.confidences.where(same, 0.0)
        return rows.amax(dim=1) if len(same) else rows.sum(dim=1)
