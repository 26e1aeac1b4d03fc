"""The four losses of Faster R-CNN."""

import torch
from torch import Tensor
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.image_list import ImageList

from shared.detector.families.family import Pyramid, keep_float32
from shared.detector.families.seeded_sampler import SeededSampler

LOSSES = ("loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg")


class FasterRcnnLosses:
    """The losses of the RPN over sampled anchors, and of the box head over sampled regions: see `family.Losses`."""

    def __init__(self, model: FasterRCNN) -> None:
        self._model = model
        keep_float32(model.backbone, model.rpn.head, model.roi_heads.box_predictor)
        self._samplers = []
        for head in (model.rpn, model.roi_heads):
            usual = head.fg_bg_sampler
            head.fg_bg_sampler = SeededSampler(usual.batch_size_per_image, usual.positive_fraction)
            self._samplers.append(head.fg_bg_sampler)

    def __call__(
        self, images: Tensor, features: Pyramid, boxes: list[Tensor], labels: list[Tensor], seeds: list[int]
    ) -> Tensor:
        """Return the losses in the order of `LOSSES`, float32 [4]."""
        for sampler in self._samplers:
            sampler.seeds = seeds
        targets = [{"boxes": own, "labels": names} for own, names in zip(boxes, labels, strict=True)]
        sizes = [(images.shape[2], images.shape[3])] * len(images)
        proposals, proposal_losses = self._model.rpn(ImageList(images, sizes), features, targets)
        _, region_losses = self._model.roi_heads(features, proposals, sizes, targets)
        losses = {**proposal_losses, **region_losses}
        return torch.stack([losses[name].float() for name in LOSSES])
