"""Inference steps that families share; each processes the whole batch."""

import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList

from shared.detector.card import ModelCard
from shared.detector.suppression import suppress

#: Boxes narrower than this, in canvas pixels, are dropped, as in torchvision.
MIN_BOX_PX = 1e-2
#: Maximum number of candidates per image, those with the highest scores, that enter the last suppression.
MAX_CANDIDATES = 1000


@torch.inference_mode()
def lay_anchors(
    backbone: nn.Module, generator: AnchorGenerator, canvas_px: int, dtype: torch.dtype
) -> tuple[Tensor, ...]:
    """Return each level's anchors, float32 [n, 4] in canvas pixels; they depend only on the canvas."""
    blank = torch.zeros((1, 3, canvas_px, canvas_px), device=next(backbone.parameters()).device)
    features = [feature.float() for feature in backbone(blank.to(dtype)).values()]
    anchors: Tensor = generator(ImageList(blank, [(canvas_px, canvas_px)]), features)[0]
    cells = [feature.shape[2] * feature.shape[3] for feature in features]
    per_cell = generator.num_anchors_per_location()
    return torch.split(anchors, [count * n for count, n in zip(cells, per_cell, strict=True)])


def clip(boxes_xyxy: Tensor, content: Tensor) -> Tensor:
    """Clip boxes [..., 4] to an image with the (width, height) in `content`, [..., 2]."""
    return torch.minimum(boxes_xyxy.clamp(min=0), torch.cat((content, content), dim=-1))


def at_least(boxes_xyxy: Tensor, side_px: float) -> Tensor:
    """Return which boxes [..., 4] have both sides at least `side_px` long, as bool [...]."""
    sides = boxes_xyxy[..., 2:] - boxes_xyxy[..., :2]
    return (sides >= side_px).all(-1)


def gather_boxes(boxes: Tensor, index: Tensor) -> Tensor:
    """Return the boxes [B, m, 4] at `index` [B, m] of boxes [B, n, 4]."""
    return boxes.gather(1, index[..., None].expand(-1, -1, 4))


def suppress_and_rank(boxes: Tensor, scores: Tensor, labels: Tensor, card: ModelCard) -> Tensor:
    """Return the detections of candidates, highest score first, in the form that `family.Inference` returns.

    `boxes` [B, n, 4], `scores` [B, n] and `labels` [B, n] are sorted by score, highest first. Candidates with a score
    below 0 are ignored.
    """
    kept = suppress(boxes, scores >= 0, card.nms_iou, labels)
    best, index = scores.where(kept, -1.0).topk(min(card.max_detections, scores.shape[1]), dim=1)
    labels = labels.gather(1, index).where(best >= 0, 0)
    return torch.cat((gather_boxes(boxes, index), best[..., None], labels[..., None].float()), dim=-1)


def mark_unsound(rows: Tensor, logits: Tensor) -> Tensor:
    """Return the rows [B, d, 6] with NaN for an image with logits that are not finite; thresholds would hide them."""
    sound = logits.isfinite().view(len(rows), -1).all(1)
    return rows.where(sound[:, None, None], torch.nan)
