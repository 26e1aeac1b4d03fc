"""torchvision's RetinaNet (arXiv:1708.02002): it classifies all anchors directly, without proposals."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import FrozenBatchNorm2d, sigmoid_focal_loss
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from shared.detector.architectures import Architecture
from shared.detector.card import ModelCard
from shared.detector.families.family import Family, Plan, Pyramid, count_rows, keep_float32, set_batch_norm_eps
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
from shared.detector.families.targets import IGNORED, Targets

_SCORES, _BOXES = "head.classification_head.cls_logits.", "head.regression_head.bbox_reg."


class RetinaNetFamily(Family):
    """RetinaNet with ResNet-50. Output k of an anchor is label k, and output 0 is unused, as in torchvision."""

    plans: Mapping[Architecture, Plan] = {
        "retinanet_resnet50_fpn": Plan(
            hallmark=("backbone.body.layer4.2.conv3.weight", f"{_SCORES}weight"),
            canvas_px=1024,
            # Three sizes per octave, rounded down as in torchvision.
            anchor_sizes_px=((32, 40, 50), (64, 80, 101), (128, 161, 203), (256, 322, 406), (512, 645, 812)),
            coco_batch_norm_eps=0.0,
        )
    }
    loss_names = ("loss_classifier", "loss_box_reg")

    def build(self, card: ModelCard) -> RetinaNet:
        """Return the card's network; its `forward` expects images that already have the size of the canvas."""
        backbone = resnet_fpn_backbone(
            backbone_name="resnet50",
            weights=None,
            norm_layer=FrozenBatchNorm2d,
            trainable_layers=5,
            returned_layers=[2, 3, 4],
            extra_blocks=LastLevelP6P7(256, 256),
        )
        model = RetinaNet(
            backbone,
            len(card.categories) + 1,
            min_size=card.canvas_px,
            max_size=card.canvas_px,
            image_mean=card.image_mean,
            image_std=card.image_std,
            anchor_generator=AnchorGenerator(
                card.anchor_sizes_px, (card.anchor_aspect_ratios,) * len(card.anchor_sizes_px)
            ),
            score_thresh=card.score_threshold,
            nms_thresh=card.nms_iou,
            detections_per_img=card.max_detections,
        )
        set_batch_norm_eps(model, card.batch_norm_eps)
        return model

    def body(self, model: RetinaNet) -> nn.Module:
        """Return the ResNet."""
        body: nn.Module = model.backbone.body
        return body

    def make_losses(self, model: RetinaNet, card: ModelCard) -> "_Losses":
        """Return the focal loss and the box loss."""
        return _Losses(model, soft=card.multi_label)

    def make_inference(self, model: RetinaNet, card: ModelCard, dtype: torch.dtype) -> "_Inference":
        """Cast the whole network, and return its forward pass."""
        return _Inference(model, card, dtype)

    def count_outputs(self, state: Mapping[str, Tensor]) -> int | None:
        """Count the scores per anchor."""
        scores, anchors = count_rows(state, f"{_SCORES}weight"), self.count_anchors(state)
        return scores // anchors if scores and anchors else None

    def count_anchors(self, state: Mapping[str, Tensor]) -> int | None:
        """Count the boxes per location."""
        coordinates = count_rows(state, f"{_BOXES}weight")
        return coordinates and coordinates // 4

    def by_class(self, name: str, weight: Tensor, outputs: int) -> Tensor | None:
        """Return each class's row of scores for each anchor; boxes do not depend on the class."""
        if not name.startswith(_SCORES):
            return None
        return weight.reshape(-1, outputs, *weight.shape[1:]).transpose(0, 1)


class _Losses:
    """Focal loss and box loss, each averaged over images: see `family.Losses`.

    They are torchvision's for boxes of confidence 1. `soft`: confidences are targets of the classes, not weights.
    """

    def __init__(self, model: RetinaNet, *, soft: bool) -> None:
        self._model = model
        self._soft = soft
        keep_float32(model.backbone, model.head)

    def __call__(self, images: Tensor, features: Pyramid, targets: list[Targets], seeds: list[int]) -> Tensor:
        """Return the losses in the order of `loss_names`, float32 [2]."""
        levels = list(features.values())
        anchors = self._model.anchor_generator(
            ImageList(images, [(images.shape[2], images.shape[3])] * len(images)), levels
        )
        outputs = self._model.head(levels)
        each = zip(outputs["cls_logits"], outputs["bbox_regression"], anchors, targets, strict=True)
        losses: Tensor = torch.stack([self._of_image(*image) for image in each]).mean(dim=0)
        return losses

    def _of_image(self, logits: Tensor, deltas: Tensor, anchors: Tensor, targets: Targets) -> Tensor:
        """Return the losses of one image, float32 [2]."""
        match = targets.match(anchors, self._model.proposal_matcher)
        counting, _ = targets.split()
        found = torch.where(match >= 0)[0]
        index = match[found]
        hard = functional.one_hot(counting.labels, logits.shape[1]).float()
        wanted, weights = torch.zeros_like(logits), logits.new_ones(len(logits))
        wanted[found] = (targets.soft_classes(logits.shape[1]) if self._soft else hard)[index]
        weights[found] = counting.confidences[index]
        of_each = sigmoid_focal_loss(logits, wanted).sum(dim=1)
        valid = (match != IGNORED).float() * (1.0 if self._soft else weights)
        codes = self._model.head.regression_head.box_coder.encode_single(counting.boxes[index], anchors[found])
        of_boxes = (deltas[found] - codes).abs().sum(dim=1) * weights[found]
        return torch.stack(((of_each * valid).sum(), of_boxes.sum())) / max(1, len(found))


class _Inference:
    """From the pyramid to boxes: see `family.Inference`."""

    def __init__(self, model: RetinaNet, card: ModelCard, dtype: torch.dtype) -> None:
        self._model = model.to(dtype)
        self._card = card
        self._anchors = torch.cat(lay_anchors(model.backbone, model.anchor_generator, card.canvas_px, dtype))

    def __call__(self, features: Pyramid, content: Tensor) -> Tensor:
        """Return [B, max_detections, 6]: box xyxy in canvas pixels, score, label."""
        outputs = self._model.head(list(features.values()))
        logits, deltas = outputs["cls_logits"].float(), outputs["bbox_regression"].float()  # [B, n, C + 1], [B, n, 4]
        classes = logits.shape[2] - 1
        scores = logits[..., 1:].flatten(1)  # [B, n·C]
        top, index = scores.topk(min(MAX_CANDIDATES, scores.shape[1]), dim=1)
        anchors, codes = self._anchors[index // classes], gather_boxes(deltas, index // classes)
        decoded = self._model.box_coder.decode_single(codes.flatten(0, 1), anchors.flatten(0, 1))
        boxes = clip(decoded.view_as(codes), content[:, None])
        top = top.sigmoid()
        top = top.where(at_least(boxes, MIN_BOX_PX) & (top > self._card.score_threshold), -1.0)
        return mark_unsound(suppress_and_rank(boxes, top, index % classes + 1, self._card), logits)


FAMILY = RetinaNetFamily()
