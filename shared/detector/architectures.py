"""The networks that a card can name, all of them torchvision `FasterRCNN`, built without a download."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn
from torchvision.models import mobilenet_v2
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN, mobilenet_backbone, resnet_fpn_backbone
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.ops import FrozenBatchNorm2d, MultiScaleRoIAlign

from shared.detector.card import Architecture, ModelCard

#: Regions are pooled to this many cells a side.
ROI_CELLS = 7


@dataclass(frozen=True)
class Blueprint:
    """What sets an architecture apart, and what a card of it says unless told otherwise."""

    backbone: Callable[[], BackboneWithFPN]
    #: A weight that tells this architecture from those named after it.
    hallmark: str
    canvas_px: int
    anchor_sizes_px: tuple[tuple[float, ...], ...]
    #: Proposals per level before, and per image after, non-maximum suppression.
    proposals_before_nms: int
    proposals_after_nms: int
    #: Proposals per level and per image while training; anchors and regions an image that the heads learn from.
    proposals_in_training: int = 2000
    anchors_in_training: int = 256
    regions_in_training: int = 512
    #: An anchor that overlaps a true box by this much is to find it.
    anchor_hit_iou: float = 0.7
    #: Proposals below this objectness are dropped.
    objectness_threshold: float = 0.0
    #: Width of the two fully connected layers over each region.
    box_head_width: int = 1024
    #: A region of this size is pooled from stride 16 (eq. 1 of the FPN paper, arXiv:1612.03144).
    canonical_px: int = 224


def _small_backbone() -> BackboneWithFPN:
    """MobileNetV2 with a pyramid of 96 channels at strides 8, 16 and 32; `body` has torchvision's `features` keys."""
    stages = {"6": "0", "13": "1", "17": "2"}
    pyramid = BackboneWithFPN(mobilenet_v2(weights=None).features, stages, [32, 96, 320], out_channels=96)
    pyramid.fpn.extra_blocks = None  # A fourth level, at stride 64, would see no more than the third one.
    return pyramid


def _mobilenet_v2_backbone() -> BackboneWithFPN:
    """MobileNetV2 with torchvision's usual pyramid of 256 channels, at strides 4 to 64; batch norm is frozen."""
    stages = {"3": "0", "6": "1", "13": "2", "17": "3"}
    features = mobilenet_v2(weights=None, norm_layer=FrozenBatchNorm2d).features
    return BackboneWithFPN(features, stages, [24, 32, 96, 320], out_channels=256)


BLUEPRINTS: dict[Architecture, Blueprint] = {
    "fasterrcnn_resnet50_fpn": Blueprint(
        backbone=lambda: resnet_fpn_backbone(
            backbone_name="resnet50", weights=None, norm_layer=FrozenBatchNorm2d, trainable_layers=5
        ),
        hallmark="backbone.body.layer4.2.conv3.weight",
        canvas_px=1024,
        anchor_sizes_px=((32,), (64,), (128,), (256,), (512,)),
        proposals_before_nms=1000,
        proposals_after_nms=1000,
    ),
    "fasterrcnn_mobilenet_v3_large_320_fpn": Blueprint(
        backbone=lambda: mobilenet_backbone(
            backbone_name="mobilenet_v3_large",
            weights=None,
            fpn=True,
            norm_layer=FrozenBatchNorm2d,
            trainable_layers=6,
        ),
        hallmark="backbone.body.1.block.0.0.weight",
        canvas_px=384,
        anchor_sizes_px=((32, 64, 128, 256, 512),) * 3,
        proposals_before_nms=150,
        proposals_after_nms=150,
        objectness_threshold=0.05,
    ),
    "fasterrcnn_mobilenet_v2_fpn": Blueprint(
        backbone=_mobilenet_v2_backbone,
        hallmark="backbone.fpn.inner_blocks.3.0.weight",
        canvas_px=384,
        anchor_sizes_px=((16,), (32,), (64,), (128,), (256,)),
        proposals_before_nms=1000,
        proposals_after_nms=1000,
    ),
    "carina_small": Blueprint(
        backbone=_small_backbone,
        hallmark="backbone.body.1.conv.0.0.weight",
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


def build(card: ModelCard) -> FasterRCNN:
    """Return the card's network with random weights; its state dict has torchvision's keys.

    Its own `forward` expects images that already fill the canvas; `runtime.Detector` goes through its parts instead.
    """
    blueprint = BLUEPRINTS[card.architecture]
    backbone = blueprint.backbone()
    features = backbone.out_channels * ROI_CELLS**2
    classes = len(card.categories) + 1
    model = FasterRCNN(
        backbone,
        min_size=card.canvas_px,
        max_size=card.canvas_px,
        image_mean=card.image_mean,
        image_std=card.image_std,
        rpn_anchor_generator=AnchorGenerator(
            card.anchor_sizes_px, (card.anchor_aspect_ratios,) * len(card.anchor_sizes_px)
        ),
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
        box_head=TwoMLPHead(features, blueprint.box_head_width),
        box_predictor=FastRCNNPredictor(blueprint.box_head_width, classes),
        box_batch_size_per_image=blueprint.regions_in_training,
        box_score_thresh=card.score_threshold,
        box_nms_thresh=card.nms_iou,
        box_detections_per_img=card.max_detections,
    )
    for module in model.modules():
        if isinstance(module, FrozenBatchNorm2d | nn.BatchNorm2d):
            module.eps = card.batch_norm_eps
    return model
