"""One epoch of training, and one evaluation: the parts that every training run shares."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel
from torch.utils._pytree import tree_map
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.image_list import ImageList

from shared.detector.runtime import Detector
from trainer.metrics import Boxes, Evaluation, evaluate_boxes

GRADIENT_NORM = 10.0


@dataclass(frozen=True)
class Batch:
    """Images on the canvas, with their boxes."""

    images: Tensor  # float32 [B, 3, S, S], normalised
    boxes: list[Tensor]  # float32 [n, 4] xyxy in canvas pixels
    labels: list[Tensor]  # int64 [n], from 1


def keep_boxes_in_float32(model: FasterRCNN) -> None:
    """Let a model train under bf16 autocast: what boxes are computed from leaves its heads as float32.

    bf16 has 8 bits of precision, so that an edge at 300 pixels would be one pixel off or more.
    """
    for module in (model.backbone, model.rpn.head, model.roi_heads.box_predictor):
        module.register_forward_hook(lambda _module, _inputs, outputs: tree_map(lambda t: t.float(), outputs))


def compute_losses(model: FasterRCNN, batch: Batch) -> dict[str, Tensor]:
    """Return Faster R-CNN's four losses, of proposals and of regions."""
    targets = [{"boxes": boxes, "labels": labels} for boxes, labels in zip(batch.boxes, batch.labels, strict=True)]
    sizes = [(batch.images.shape[2], batch.images.shape[3])] * len(batch.images)
    features = model.backbone(batch.images)
    proposals, proposal_losses = model.rpn(ImageList(batch.images, sizes), features, targets)
    _, region_losses = model.roi_heads(features, proposals, sizes, targets)
    return {**proposal_losses, **region_losses}


def train_one_epoch(
    model: FasterRCNN,
    average: AveragedModel,
    batches: Iterable[Batch],
    optimizer: Optimizer,
    schedule: LRScheduler,
    *,
    bf16: bool,
) -> dict[str, float]:
    """Train on each batch once, and return each loss's mean; raises `FloatingPointError` when the loss is lost."""
    _set_training(model)
    sums: dict[str, Tensor] = {}
    steps = 0
    for batch in batches:
        with torch.autocast(batch.images.device.type, torch.bfloat16, enabled=bf16):
            losses = compute_losses(model, batch)
        optimizer.zero_grad()
        total = torch.stack(list(losses.values())).sum()
        total.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(model.parameters(), GRADIENT_NORM)
        if not norm.isfinite():
            raise FloatingPointError("the gradient is not finite")
        optimizer.step()
        schedule.step()
        average.update_parameters(model)
        steps += 1
        for name, loss in losses.items():
            sums[name] = sums.get(name, torch.zeros(())) + loss.detach().cpu()
    return {name: float(loss / steps) for name, loss in sums.items()}


def _set_training(model: FasterRCNN) -> None:
    """Put a model in training mode, but keep the statistics it came with: a small batch has no better ones."""
    model.train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()


def evaluate(
    detector: Detector, renditions: Iterable[NDArray[np.uint8]], truth: Mapping[int, Boxes], image_ids: Sequence[int]
) -> tuple[Evaluation, float]:
    """Detect in each rendition, one at a time as they come, and compare; also return the mean seconds an image."""
    found: dict[int, Boxes] = {}
    started = time.perf_counter()
    for image_id, rendition in zip(image_ids, renditions, strict=True):
        detections = detector.detect([detector.place(rendition)])[0]
        found[image_id] = Boxes(
            np.array([d.category_id for d in detections], np.int64),
            np.array([d.box_xyxy_px for d in detections], np.float32).reshape(-1, 4),
            np.array([d.score for d in detections], np.float32),
        )
    seconds = (time.perf_counter() - started) / len(image_ids)
    categories = [category.id for category in detector.card.categories]
    return evaluate_boxes(image_ids, truth, found, categories), seconds
