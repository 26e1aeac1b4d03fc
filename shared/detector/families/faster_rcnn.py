"""torchvision's Faster R-CNN (arXiv:1506.01497) with several backbones."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchvision.models import mobilenet_v2
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN, mobilenet_backbone, resnet_fpn_backbone
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.ops import FrozenBatchNorm2d, MultiScaleRoIAlign

from shared.detector.architectures import Architecture
from shared.detector.card import ModelCard
from shared.detector.families.family import Family, Plan, count_rows, set_batch_norm_eps
from shared.detector.families.faster_rcnn_inference import FasterRcnnInference
from shared.detector.families.faster_rcnn_losses import LOSSES, FasterRcnnLosses

#: Number of cells per side to which regions are pooled.
ROI_CELLS = 7
_LAST_LAYER = "roi_heads.box_predictor."


@dataclass(frozen=True, kw_only=True)
class Blueprint(Plan):
    """A plan with the parts and the parameters of a Faster R-CNN."""

    backbone: Callable[[], BackboneWithFPN]
    #: Makes the head after the pooling from the pyramid's channels and `box_head_width`.
    box_head: Callable[[int, int], nn.Module] = lambda channels, width: TwoMLPHead(channels * ROI_CELLS**2, width)
    #: Makes the RPN's head from the pyramid's channels and the anchors per location; None means torchvision's default.
    rpn_head: Callable[[int, int], nn.Module] | None = None
    #: Proposals per level before, and per image after, non-maximum suppression.
    proposals_before_nms: int
    proposals_after_nms: int
    #: In training: proposals per level and per image; sampled anchors and regions per image for the losses.
    proposals_in_training: int = 2000
    anchors_in_training: int = 256
    regions_in_training: int = 512
    #: An anchor is positive if its overlap with an annotated box is at least this.
    anchor_hit_iou: float = 0.7
    #: Proposals below this objectness are dropped.
    objectness_threshold: float = 0.0
    #: Width of the fully connected layers of the box head.
    box_head_width: int = 1024
    #: The size of a region that is pooled from stride 16 (eq. 1 of the FPN paper, arXiv:1612.03144).
    canonical_px: int = 224


class FasterRcnn(Family):
    """Faster R-CNN with a feature pyramid; training and inference call its parts, not torchvision's `forward`."""

    loss_names = LOSSES

    def __init__(self, blueprints: Mapping[Architecture, Blueprint]) -> None:
        self.plans: Mapping[Architecture, Blueprint] = blueprints

    def build(self, card: ModelCard) -> FasterRCNN:
        """Return the card's network; its `forward` expects images that already have the size of the canvas."""
        blueprint = self.plans[card.architecture]
        backbone = blueprint.backbone()
        anchors = AnchorGenerator(card.anchor_sizes_px, (card.anchor_aspect_ratios,) * len(card.anchor_sizes_px))
        at_each_place = anchors.num_anchors_per_location()[0]
        rpn_head = blueprint.rpn_head and blueprint.rpn_head(backbone.out_channels, at_each_place)
        model = FasterRCNN(
            backbone,
            min_size=card.canvas_px,
            max_size=card.canvas_px,
            image_mean=card.image_mean,
            image_std=card.image_std,
            rpn_anchor_generator=anchors,
            rpn_head=rpn_head,
            rpn_pre_nms_top_n_train=blueprint.proposals_in_training,
            rpn_post_nms_top_n_train=blueprint.proposals_in_training,
            rpn_pre_nms_top_n_test=blueprint.proposals_before_nms,
            rpn_post_nms_top_n_test=blueprint.proposals_after_nms,
            rpn_batch_size_per_image=blueprint.anchors_in_training,
            rpn_fg_iou_thresh=blueprint.anchor_hit_iou,
            rpn_score_thresh=blueprint.objectness_threshold,
            box_roi_pool=MultiScaleRoIAlign(
                ["0", "1", "2", "3"], ROI_CELLS, sampling_ratio=2, canonical_scale=blueprint.canonical_px
            ),
            box_head=blueprint.box_head(backbone.out_channels, blueprint.box_head_width),
            box_predictor=FastRCNNPredictor(blueprint.box_head_width, len(card.categories) + 1),
            box_batch_size_per_image=blueprint.regions_in_training,
            box_score_thresh=card.score_threshold,
            box_nms_thresh=card.nms_iou,
            box_detections_per_img=card.max_detections,
        )
        set_batch_norm_eps(model, card.batch_norm_eps)
        return model

    def body(self, model: FasterRCNN) -> nn.Module:
        """Return the backbone without its pyramid."""
        body: nn.Module = model.backbone.body
        return body

    def make_losses(self, model: FasterRCNN, card: ModelCard) -> FasterRcnnLosses:
        """Return the losses, with seeded samplers."""
        return FasterRcnnLosses(model, multi_label=card.multi_label)

    def make_inference(self, model: FasterRCNN, card: ModelCard, dtype: torch.dtype) -> FasterRcnnInference:
        """Cast all layers except the last one, and return the forward pass."""
        return FasterRcnnInference(model, card, dtype)

    def count_outputs(self, state: Mapping[str, Tensor]) -> int | None:
        """Count the scores per region."""
        return count_rows(state, f"{_LAST_LAYER}cls_score.weight")

    def count_anchors(self, state: Mapping[str, Tensor]) -> int | None:
        """Count the RPN's scores per location."""
        return count_rows(state, "rpn.head.cls_logits.weight")

    def by_class(self, name: str, weight: Tensor, outputs: int) -> Tensor | None:
        """Return each class's row of scores, or its four rows of box coordinates."""
        return weight.reshape(outputs, -1, *weight.shape[1:]) if name.startswith(_LAST_LAYER) else None


def _resnet50_backbone() -> BackboneWithFPN:
    return resnet_fpn_backbone(backbone_name="resnet50", weights=None, norm_layer=FrozenBatchNorm2d, trainable_layers=5)


def _mobilenet_v3_backbone() -> BackboneWithFPN:
    return mobilenet_backbone(
        backbone_name="mobilenet_v3_large", weights=None, fpn=True, norm_layer=FrozenBatchNorm2d, trainable_layers=6
    )


def _mobilenet_v2_backbone() -> BackboneWithFPN:
    """MobileNetV2 with torchvision's default pyramid of 256 channels at strides 4 to 64; batch norm is frozen."""
    stages = {"3": "0", "6": "1", "13": "2", "17": "3"}
    features = mobilenet_v2(weights=None, norm_layer=FrozenBatchNorm2d).features
    return BackboneWithFPN(features, stages, [24, 32, 96, 320], out_channels=256)


def _small_backbone() -> BackboneWithFPN:
    """MobileNetV2 with a pyramid of 96 channels at strides 8, 16 and 32; `body` has torchvision's `features` keys."""
    stages = {"6": "0", "13": "1", "17": "2"}
    pyramid = BackboneWithFPN(mobilenet_v2(weights=None).features, stages, [32, 96, 320], out_channels=96)
    pyramid.fpn.extra_blocks = None  # A fourth level, at stride 64, would add no information.
    return pyramid


FAMILY = FasterRcnn(
    {
        "fasterrcnn_resnet50_fpn": Blueprint(
            backbone=_resnet50_backbone,
            hallmark=("backbone.body.layer4.2.conv3.weight",),
            canvas_px=1024,
            anchor_sizes_px=((32,), (64,), (128,), (256,), (512,)),
            coco_batch_norm_eps=0.0,
            proposals_before_nms=1000,
            proposals_after_nms=1000,
        ),
        "fasterrcnn_mobilenet_v3_large_320_fpn": Blueprint(
            backbone=_mobilenet_v3_backbone,
            hallmark=("backbone.body.1.block.0.0.weight",),
            canvas_px=384,
            anchor_sizes_px=((32, 64, 128, 256, 512),) * 3,
            proposals_before_nms=150,
            proposals_after_nms=150,
            objectness_threshold=0.05,
        ),
        "fasterrcnn_mobilenet_v2_fpn": Blueprint(
            backbone=_mobilenet_v2_backbone,
            hallmark=("backbone.body.1.conv.0.0.weight", "backbone.fpn.inner_blocks.3.0.weight"),
            canvas_px=384,
            anchor_sizes_px=((16,), (32,), (64,), (128,), (256,)),
            proposals_before_nms=1000,
            proposals_after_nms=1000,
        ),
        "carina_small": Blueprint(
            backbone=_small_backbone,
            hallmark=("backbone.body.1.conv.0.0.weight",),
            canvas_px=448,
            anchor_sizes_px=((16, 26), (40, 62), (92, 140)),
            proposals_before_nms=300,
            proposals_after_nms=100,
            proposals_in_training=300,
            anchors_in_training=64,
            regions_in_training=32,
            anchor_hit_iou=0.55,
            box_head_width=256,
            canonical_px=112,
        ),
    }
)
