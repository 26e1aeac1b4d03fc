"""Non-maximum suppression for a whole batch at once.

torchvision's `batched_nms` separates groups by shifting their boxes. In float32 the shift loses precision, so an
image's result would depend on its position in the batch. Here each group has its own overlap matrix.
"""

import torch
from torch import Tensor


def suppress(boxes_xyxy: Tensor, valid: Tensor, iou_threshold: float, labels: Tensor | None = None) -> Tensor:
    """Return which boxes a greedy non-maximum suppression keeps, as bool [G, N].

    `boxes_xyxy` is [G, N, 4], each group sorted by score, highest first. Boxes that are not `valid` (bool [G, N]) are
    not kept and suppress no others. With `labels` [G, N], a box suppresses only boxes with the same label.

    A box is kept if no earlier kept box overlaps it. This rule is applied to all boxes at once until nothing changes,
    which gives the greedy result: after n rounds, the first n boxes of a group are final. In practice, a few rounds are
    enough.
    """
    overlapped = _overlap(boxes_xyxy, iou_threshold).tril_(-1)  # [G, N, N]: by an earlier box
    if labels is not None:
        overlapped &= labels[:, :, None] == labels[:, None, :]
    kept = valid
    while True:
        refined = valid & ~(overlapped & kept[:, None, :]).any(-1)
        if torch.equal(refined, kept):
            return kept
        kept = refined


def _overlap(boxes_xyxy: Tensor, iou_threshold: float) -> Tensor:
    """Return whether the intersection over union of each pair exceeds the threshold, as bool [G, N, N]."""
    x1, y1, x2, y2 = boxes_xyxy.unbind(-1)
    area = (x2 - x1) * (y2 - y1)
    width = (torch.minimum(x2[:, :, None], x2[:, None, :]).sub_(torch.maximum(x1[:, :, None], x1[:, None, :]))).clamp_(
        0
    )
    height = (torch.minimum(y2[:, :, None], y2[:, None, :]).sub_(torch.maximum(y1[:, :, None], y1[:, None, :]))).clamp_(
        0
    )
    intersection = width.mul_(height)
    union = (area[:, :, None] + area[:, None, :]).sub_(intersection)
    return intersection > union.mul_(iou_threshold)
