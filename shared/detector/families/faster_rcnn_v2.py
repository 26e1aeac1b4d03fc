"""Version 2 of torchvision's Faster R-CNN: deeper heads, and batch norm in the pyramid and the heads."""

from torch import nn
from torchvision.models import resnet50
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import FrozenBatchNorm2d

from shared.detector.families.faster_rcnn import ROI_CELLS, Blueprint, FasterRcnn


def _backbone() -> BackboneWithFPN:
    stages = {f"layer{number}": str(number - 1) for number in (1, 2, 3, 4)}
    body = resnet50(weights=None, norm_layer=FrozenBatchNorm2d)
    return BackboneWithFPN(body, stages, [256, 512, 1024, 2048], out_channels=256, norm_layer=nn.BatchNorm2d)


FAMILY = FasterRcnn(
    {
        "fasterrcnn_resnet50_fpn_v2": Blueprint(
            backbone=_backbone,
            rpn_head=lambda channels, anchors: RPNHead(channels, anchors, conv_depth=2),
            box_head=lambda channels, width: FastRCNNConvFCHead(
                (channels, ROI_CELLS, ROI_CELLS), [256] * 4, [width], norm_layer=nn.BatchNorm2d
            ),
            hallmark=("backbone.body.layer4.2.conv3.weight", "rpn.head.conv.1.0.weight"),
            canvas_px=1024,
            anchor_sizes_px=((32,), (64,), (128,), (256,), (512,)),
            proposals_before_nms=1000,
            proposals_after_nms=1000,
        )
    }
)
