"""Inference of Faster R-CNN with fixed shapes, without a loop over images."""

import torch
from torch import Tensor
from torchvision.models.detection import FasterRCNN

from shared.detector.card import ModelCard
from shared.detector.families.family import Pyramid
from shared.detector.families.steps import (
    MAX_CANDIDATES,
    MIN_BOX_PX,
    at_least,
    clip,
    gather_boxes,
    lay_anchors,
    mark_unsound,
    suppress_and_rank,
)
from shared.detector.suppression import suppress

#: Proposals narrower than this, in canvas pixels, are dropped, as torchvision does.
MIN_PROPOSAL_PX = 1e-3


class FasterRcnnInference:
    """From the pyramid to boxes: see `family.Inference`.

    torchvision's `forward` processes proposals and results image by image, with about ten host syncs for each.
    """

    def __init__(self, model: FasterRCNN, card: ModelCard, dtype: torch.dtype) -> None:
        self._model = model
        self._card = card
        self._dtype = dtype
        # The remaining layers stay in float32: they determine scores and boxes, and take almost no time.
        for costly in (model.backbone, model.rpn.head, model.roi_heads.box_head):
            costly.to(dtype)
        self._anchors = lay_anchors(model.backbone, model.rpn.anchor_generator, card.canvas_px, dtype)

    def __call__(self, features: Pyramid, content: Tensor) -> Tensor:
        """Return [B, max_detections, 6]: box xyxy in canvas pixels, score, label."""
        objectness, deltas = self._model.rpn.head(list(features.values()))
        proposals, valid = self._propose(objectness, deltas, content)
        pooled = self._model.roi_heads.box_roi_pool(
            {level: feature.float() for level, feature in features.items()},
            list(proposals),
            [(self._card.canvas_px, self._card.canvas_px)] * len(content),
        )
        hidden = self._model.roi_heads.box_head(pooled.to(self._dtype))
        logits, deltas = self._model.roi_heads.box_predictor(hidden.float())
        return mark_unsound(self._conclude(logits, deltas, proposals, valid, content), logits)

    def _propose(self, objectness: list[Tensor], deltas: list[Tensor], content: Tensor) -> tuple[Tensor, Tensor]:
        """Return the best P regions of each image, float32 [B, P, 4], and which of them are valid, bool [B, P]."""
        rpn, batch = self._model.rpn, len(content)
        most = min(rpn.pre_nms_top_n(), max(map(len, self._anchors)))
        boxes = content.new_zeros((batch, len(self._anchors), most, 4))
        scores = content.new_full((batch, len(self._anchors), most), -1.0)
        for level, (anchors, level_objectness, level_deltas) in enumerate(
            zip(self._anchors, objectness, deltas, strict=True)
        ):
            # The channels of both heads are ordered (anchor, value), `anchors` are ordered (row, column, anchor).
            logits = level_objectness.float().permute(0, 2, 3, 1).flatten(1)  # [B, n]
            codes = level_deltas.float().permute(0, 2, 3, 1).reshape(batch, -1, 4)  # [B, n, 4]
            top, index = logits.topk(min(most, len(anchors)), dim=1)
            codes = gather_boxes(codes, index)
            decoded = rpn.box_coder.decode_single(codes.flatten(0, 1), anchors[index].flatten(0, 1))
            boxes[:, level, : top.shape[1]] = decoded.view(batch, -1, 4)
            scores[:, level, : top.shape[1]] = top.sigmoid()
        boxes = clip(boxes, content[:, None, None])
        valid = (scores >= max(rpn.score_thresh, 0.0)) & at_least(boxes, MIN_PROPOSAL_PX)
        kept = suppress(boxes.flatten(0, 1), valid.flatten(0, 1), rpn.nms_thresh)
        ranked = scores.where(kept.view_as(scores), -1.0).flatten(1)
        best, index = ranked.topk(min(rpn.post_nms_top_n(), ranked.shape[1]), dim=1)
        return gather_boxes(boxes.flatten(1, 2), index), best >= 0

    def _conclude(self, logits: Tensor, deltas: Tensor, proposals: Tensor, valid: Tensor, content: Tensor) -> Tensor:
        """Decode the boxes, apply the score threshold, and suppress overlapping boxes."""
        batch, regions = valid.shape
        classes = logits.shape[1] - 1
        decoded = self._model.roi_heads.box_coder.decode_single(deltas, proposals.flatten(0, 1))
        boxes = decoded.view(batch, regions, classes + 1, 4)[:, :, 1:].flatten(1, 2)  # [B, P·C, 4]
        boxes = clip(boxes, content[:, None])
        probabilities = logits.sigmoid() if self._card.multi_label else logits.softmax(-1)
        scores = probabilities.view(batch, regions, classes + 1)[:, :, 1:]
        scores = scores.where(valid[..., None], 0.0).flatten(1)  # [B, P·C]
        # Empty boxes are removed before the top candidates are selected, so that they do not displace others.
        scores = scores.where(at_least(boxes, MIN_BOX_PX) & (scores > self._card.score_threshold), -1.0)
        top, index = scores.topk(min(MAX_CANDIDATES, scores.shape[1]), dim=1)
        return suppress_and_rank(gather_boxes(boxes, index), top, index % classes + 1, self._card)
