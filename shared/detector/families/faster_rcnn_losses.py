"""Training losses of Faster R-CNN.

They are those of torchvision's heads for boxes of confidence 1; torchvision has no weights, soft classes or regions to
ignore.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import concat_box_prediction_layers

from shared.detector.families.family import Pyramid, keep_float32
from shared.detector.families.seeded_sampler import SeededSampler
from shared.detector.families.targets import Targets

LOSSES = ("loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg")
#: The difference at which the loss of a box's coordinates turns from quadratic to linear.
_BETA = 1 / 9


class FasterRcnnLosses:
    """The losses of the RPN over sampled anchors, and of the box head over sampled regions: see `family.Losses`.

    `multi_label`: each class of a region has its own sigmoid, and softmax over the classes otherwise.
    """

    def __init__(self, model: FasterRCNN, *, multi_label: bool) -> None:
        self._model = model
        self._multi_label = multi_label
        keep_float32(model.backbone, model.rpn.head, model.roi_heads.box_predictor)
        self._samplers = []
        for head in (model.rpn, model.roi_heads):
            usual = head.fg_bg_sampler
            self._samplers.append(SeededSampler(usual.batch_size_per_image, usual.positive_fraction))

    def __call__(self, images: Tensor, features: Pyramid, targets: list[Targets], seeds: list[int]) -> Tensor:
        """Return the losses in the order of `LOSSES`, float32 [4]."""
        for sampler in self._samplers:
            sampler.seeds = seeds
        proposals, of_anchors = self._propose(images, features, targets)
        return torch.stack((*of_anchors, *self._classify(images, features, proposals, targets)))

    def _propose(
        self, images: Tensor, features: Pyramid, targets: Sequence[Targets]
    ) -> tuple[list[Tensor], tuple[Tensor, Tensor]]:
        """Return the proposals of each image, [p, 4], and the losses of the anchors."""
        rpn = self._model.rpn
        sizes = [(images.shape[2], images.shape[3])] * len(images)
        objectness, deltas = rpn.head(list(features.values()))
        anchors = rpn.anchor_generator(ImageList(images, sizes), list(features.values()))
        per_level = [level[0].numel() for level in objectness]
        objectness, deltas = concat_box_prediction_layers(objectness, deltas)
        decoded = rpn.box_coder.decode(deltas.detach(), anchors).view(len(images), -1, 4)
        proposals, _ = rpn.filter_proposals(decoded, objectness, sizes, per_level)

        matches = [own.match(boxes, rpn.proposal_matcher) for own, boxes in zip(targets, anchors, strict=True)]
        positive, chosen = _sample(self._samplers[0], matches)
        truths, confidences, _ = _look_up(targets, matches)
        codes = torch.cat(rpn.box_coder.encode(truths, anchors))
        weights = torch.cat(confidences)
        is_finding = (torch.cat(matches) >= 0).float()
        of_boxes = _weighted_box_loss(deltas[positive], codes[positive], weights[positive]) / len(chosen)
        of_objectness = F.binary_cross_entropy_with_logits(
            objectness.flatten()[chosen], is_finding[chosen], weights[chosen], reduction="mean"
        )
        return proposals, (of_objectness, of_boxes)

    def _classify(
        self, images: Tensor, features: Pyramid, proposals: list[Tensor], targets: Sequence[Targets]
    ) -> tuple[Tensor, Tensor]:
        """Return the losses of the regions: of the class and of the box."""
        heads = self._model.roi_heads
        regions = [torch.cat((own, target.split()[0].boxes)) for own, target in zip(proposals, targets, strict=True)]
        matches = [own.match(boxes, heads.proposal_matcher) for own, boxes in zip(targets, regions, strict=True)]
        _, chosen = _sample(self._samplers[1], matches)
        kept = [each.sort().values for each in _per_image(chosen, regions)]
        regions = [own[index] for own, index in zip(regions, kept, strict=True)]
        matches = [own[index] for own, index in zip(matches, kept, strict=True)]
        pooled = heads.box_roi_pool(features, regions, [(images.shape[2], images.shape[3])] * len(images))
        logits, deltas = heads.box_predictor(heads.box_head(pooled))

        truths, confidences, numbers = _look_up(targets, matches)
        codes, weights = torch.cat(heads.box_coder.encode(truths, regions)), torch.cat(confidences)
        labels = torch.cat(numbers)
        found = torch.where(labels > 0)[0]
        deltas = deltas.view(len(labels), -1, 4)[found, labels[found]]
        of_boxes = _weighted_box_loss(deltas, codes[found], weights[found]) / len(labels)
        if self._multi_label:
            return self._score_independently(logits, targets, matches), of_boxes
        return (F.cross_entropy(logits, labels, reduction="none") * weights).mean(), of_boxes

    def _score_independently(self, logits: Tensor, targets: Sequence[Targets], matches: Sequence[Tensor]) -> Tensor:
        rows = []
        for target, match in zip(targets, matches, strict=True):
            soft = target.soft_classes(logits.shape[1])
            background = soft.new_zeros((1, logits.shape[1]))
            rows.append(torch.cat((background, soft))[match.clamp(min=-1) + 1])
        of_each = F.binary_cross_entropy_with_logits(logits[:, 1:], torch.cat(rows)[:, 1:], reduction="none")
        return of_each.sum(dim=1).mean()


def _sample(sampler: SeededSampler, matches: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return the places of the sampled positives, and of all samples with positives first, over all images."""
    positives, negatives = sampler([match + 1 for match in matches])
    positive, negative = (torch.where(torch.cat(masks))[0] for masks in (positives, negatives))
    return positive, torch.cat((positive, negative))


def _per_image(places: Tensor, regions: Sequence[Tensor]) -> list[Tensor]:
    """Return the places within each image."""
    starts = [0]
    for own in regions:
        starts.append(starts[-1] + len(own))
    return [places[(places >= start) & (places < end)] - start for start, end in pairwise(starts)]


def _look_up(targets: Sequence[Targets], matches: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Return for each match its true box, weight and label: background has any box, weight 1 and label 0."""
    boxes, weights, labels = [], [], []
    for target, match in zip(targets, matches, strict=True):
        counting, _ = target.split()
        found, index = match >= 0, match.clamp(min=0)
        if not len(counting.boxes):
            boxes.append(match.new_zeros((len(match), 4), dtype=torch.float32))
            weights.append(boxes[-1].new_ones(len(match)))
            labels.append(torch.zeros_like(match))
            continue
        boxes.append(counting.boxes[index])
        weights.append(counting.confidences[index].where(found, 1.0))
        labels.append(counting.labels[index].where(found, 0))
    return boxes, weights, labels


def _weighted_box_loss(deltas: Tensor, codes: Tensor, weights: Tensor) -> Tensor:
    return (F.smooth_l1_loss(deltas, codes, beta=_BETA, reduction="none").sum(dim=1) * weights).sum()
