"""The list of architectures, described without importing torch."""

from dataclasses import dataclass
from typing import Literal

Architecture = Literal[
    "fasterrcnn_resnet50_fpn",
    "fasterrcnn_resnet50_fpn_v2",
    "fasterrcnn_mobilenet_v3_large_320_fpn",
    "fasterrcnn_mobilenet_v2_fpn",
    "retinanet_resnet50_fpn",
    "carina_small",
]


@dataclass(frozen=True)
class Description:
    """The facts about an architecture that the API and the command line need."""

    #: The module of `shared.detector.families` that builds, trains and runs it.
    family: str
    #: Number of levels of the feature pyramid; a card has anchor sizes for each.
    pyramid_levels: int
    #: The file of the backbone's ImageNet weights that PyTorch publishes; its name ends with the start of its SHA-256.
    #: Architectures with the same file can start from each other's weights.
    imagenet_file: str


_RESNET50 = "resnet50-0676ba61.pth"
_MOBILENET_V2 = "mobilenet_v2-b0353104.pth"
_MOBILENET_V3 = "mobilenet_v3_large-8738ca79.pth"

ARCHITECTURES: dict[Architecture, Description] = {
    "fasterrcnn_resnet50_fpn": Description("faster_rcnn", 5, _RESNET50),
    "fasterrcnn_resnet50_fpn_v2": Description("faster_rcnn_v2", 5, _RESNET50),
    "fasterrcnn_mobilenet_v3_large_320_fpn": Description("faster_rcnn", 3, _MOBILENET_V3),
    "fasterrcnn_mobilenet_v2_fpn": Description("faster_rcnn", 5, _MOBILENET_V2),
    "retinanet_resnet50_fpn": Description("retinanet", 5, _RESNET50),
    "carina_small": Description("faster_rcnn", 3, _MOBILENET_V2),
}
