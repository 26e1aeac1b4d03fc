"""The detector as it serves: fixed shapes, no loop over images, and one copy each way.

torchvision's own `forward` resizes each image, pads the batch to its largest, and goes through proposals and results
image by image, with about ten host syncs each. Here the canvas is fixed, so that an image's result does not depend on
its company, and every step is done for the whole batch.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.models.detection.image_list import ImageList

from shared.detector import placing
from shared.detector.card import ModelCard
from shared.detector.folding import fold_batch_norm
from shared.detector.placing import Placed
from shared.detector.suppression import suppress
from shared.detector.weights import load_model
from shared.errors import DetectionFailed, DeviceOutOfMemory

Precision = Literal["auto", "fp32", "bf16"]

#: Boxes narrower than this, in canvas pixels, are dropped, as torchvision does.
LEAST_PROPOSAL_PX = 1e-3
LEAST_BOX_PX = 1e-2
#: The best results above the score threshold that enter the last suppression, an image.
MAX_CANDIDATES = 1000


@dataclass(frozen=True)
class Detection:
    """One box that the model reports."""

    category_id: int
    category_name: str
    score: float
    #: In pixels of the rendition.
    box_xyxy_px: tuple[float, float, float, float]


class Detector:
    """A model on a device. One thread at a time may call `detect`; `place` is free for all."""

    def __init__(self, card: ModelCard, weights: bytes, device: str = "auto", precision: Precision = "auto") -> None:
        self.card = card
        self.device = _choose_device(device)
        self.precision: Literal["fp32", "bf16"] = choose_precision(self.device) if precision == "auto" else precision
        with _reporting_exhaustion():
            self._model = load_model(card, weights).eval().requires_grad_(False)
            fold_batch_norm(self._model.backbone.body)
            self._model.to(device=self.device, memory_format=torch.channels_last)
            self._dtype = torch.bfloat16 if self.precision == "bf16" else torch.float32
            # What is left in float32 decides scores and boxes, and costs next to nothing.
            for costly in (self._model.backbone, self._model.rpn.head, self._model.roi_heads.box_head):
                costly.to(self._dtype)
            # [3] each, in units of the 8-bit canvas
            self._mean = 255 * torch.tensor(card.image_mean, device=self.device)
            self._std = 255 * torch.tensor(card.image_std, device=self.device)
            self._anchors = self._lay_anchors()

    def place(self, rendition: NDArray[np.uint8]) -> Placed:
        """Fit a rendition, uint8 [h, w], onto this model's canvas."""
        return placing.place(rendition, self.card.canvas_px)

    def detect(self, batch: Sequence[Placed]) -> list[tuple[Detection, ...]]:
        """Return each image's detections, best first, in rendition pixels.

        Raises `DeviceOutOfMemory`, and `DetectionFailed` when the scores of an image are not numbers.
        """
        if not batch:
            return []
        with _reporting_exhaustion(), torch.inference_mode():
            canvases, content = self._upload(batch)
            rows = self._forward(canvases, content).cpu().numpy()[: len(batch)]
        if np.isnan(rows).any():
            raise DetectionFailed("The model's scores are not numbers.")
        return [self._report(image, row) for image, row in zip(batch, rows, strict=True)]

    # --- the steps ---------------------------------------------------------------------------------------------------

    def _upload(self, batch: Sequence[Placed]) -> tuple[Tensor, Tensor]:
        """Return canvases, uint8 [B, S, S], and their content's (width, height), float32 [B, 2], on the device.

        B is the next power of two: few shapes, so that kernels are chosen once; the blanks have no content.
        """
        side, pinned = self.card.canvas_px, self.device.type == "cuda"
        canvases = torch.zeros((_bucket(len(batch)), side, side), dtype=torch.uint8, pin_memory=pinned)
        content = torch.zeros((len(canvases), 2), pin_memory=pinned)
        pixels, sizes = canvases.numpy(), content.numpy()
        for place, image in enumerate(batch):
            pixels[place] = image.canvas
            sizes[place] = image.width_px * image.scale_x, image.height_px * image.scale_y
        return canvases.to(self.device, non_blocking=True), content.to(self.device, non_blocking=True)

    def _forward(self, canvases: Tensor, content: Tensor) -> Tensor:
        """Return [B, max_detections, 6]: box xyxy in canvas pixels, score, label; label 0 fills up.

        An image whose logits are not finite has NaN throughout: no threshold would let such scores be seen.
        """
        grey = canvases[:, None].float()  # [B, 1, S, S]
        images = (grey - self._mean[:, None, None]) / self._std[:, None, None]
        images = images.to(self._dtype, memory_format=torch.channels_last)
        features = self._model.backbone(images)
        objectness, deltas = self._model.rpn.head(list(features.values()))
        proposals, valid = self._propose(objectness, deltas, content)

        pooled = self._model.roi_heads.box_roi_pool(
            {level: feature.float() for level, feature in features.items()},
            list(proposals),
            [(self.card.canvas_px, self.card.canvas_px)] * len(canvases),
        )
        hidden = self._model.roi_heads.box_head(pooled.to(self._dtype))
        logits, deltas = self._model.roi_heads.box_predictor(hidden.float())
        rows = self._conclude(logits, deltas, proposals, valid, content)
        sound = logits.isfinite().view(len(canvases), -1).all(1)
        return rows.where(sound[:, None, None], torch.nan)

    def _propose(self, objectness: list[Tensor], deltas: list[Tensor], content: Tensor) -> tuple[Tensor, Tensor]:
        """Return the best P regions of each image, float32 [B, P, 4], and which of them count, bool [B, P]."""
        rpn, batch = self._model.rpn, len(content)
        most = min(rpn.pre_nms_top_n(), max(map(len, self._anchors)))
        boxes = content.new_zeros((batch, len(self._anchors), most, 4))
        scores = content.new_full((batch, len(self._anchors), most), -1.0)
        for level, (anchors, level_objectness, level_deltas) in enumerate(
            zip(self._anchors, objectness, deltas, strict=True)
        ):
            # Both heads' channels are (anchor, value); the order of `anchors` is (row, column, anchor).
            logits = level_objectness.float().permute(0, 2, 3, 1).flatten(1)  # [B, n]
            codes = level_deltas.float().permute(0, 2, 3, 1).reshape(batch, -1, 4)  # [B, n, 4]
            top, index = logits.topk(min(most, len(anchors)), dim=1)
            codes = codes.gather(1, index[..., None].expand(-1, -1, 4))
            decoded = rpn.box_coder.decode_single(codes.flatten(0, 1), anchors[index].flatten(0, 1))
            boxes[:, level, : top.shape[1]] = decoded.view(batch, -1, 4)
            scores[:, level, : top.shape[1]] = top.sigmoid()
        boxes = _clip(boxes, content[:, None, None])
        valid = (scores >= max(rpn.score_thresh, 0.0)) & _at_least(boxes, LEAST_PROPOSAL_PX)
        kept = suppress(boxes.flatten(0, 1), valid.flatten(0, 1), rpn.nms_thresh)
        ranked = scores.where(kept.view_as(scores), -1.0).flatten(1)
        best, index = ranked.topk(min(rpn.post_nms_top_n(), ranked.shape[1]), dim=1)
        proposals = boxes.flatten(1, 2).gather(1, index[..., None].expand(-1, -1, 4))
        return proposals, best >= 0

    def _conclude(self, logits: Tensor, deltas: Tensor, proposals: Tensor, valid: Tensor, content: Tensor) -> Tensor:
        """Decode, threshold and suppress: see `_forward` for what comes out."""
        batch, regions = valid.shape
        classes = logits.shape[1] - 1
        decoded = self._model.roi_heads.box_coder.decode_single(deltas, proposals.flatten(0, 1))
        boxes = decoded.view(batch, regions, classes + 1, 4)[:, :, 1:].flatten(1, 2)  # [B, P·C, 4]
        boxes = _clip(boxes, content[:, None])
        scores = logits.softmax(-1).view(batch, regions, classes + 1)[:, :, 1:]
        scores = scores.where(valid[..., None], 0.0).flatten(1)  # [B, P·C]
        # Empty boxes are dropped before the cut, so that they take no candidate's place.
        scores = scores.where(_at_least(boxes, LEAST_BOX_PX) & (scores > self.card.score_threshold), -1.0)
        top, index = scores.topk(min(MAX_CANDIDATES, scores.shape[1]), dim=1)
        boxes = boxes.gather(1, index[..., None].expand(-1, -1, 4))
        labels = index % classes + 1
        kept = suppress(boxes, top >= 0, self.card.nms_iou, labels)
        best, index = top.where(kept, -1.0).topk(min(self.card.max_detections, top.shape[1]), dim=1)
        boxes = boxes.gather(1, index[..., None].expand(-1, -1, 4))
        labels = labels.gather(1, index).where(best >= 0, 0)
        return torch.cat((boxes, best[..., None], labels[..., None].float()), dim=-1)

    def _report(self, image: Placed, rows: NDArray[np.float32]) -> tuple[Detection, ...]:
        """Turn one image's rows, [D, 6], into detections in rendition pixels."""
        rows = rows[rows[:, 5] > 0]
        scale = np.array([image.scale_x, image.scale_y] * 2)
        limit = np.array([image.width_px, image.height_px] * 2)
        boxes = np.clip(rows[:, :4] / scale, 0, limit)
        detections = []
        for box, score, label in zip(boxes.tolist(), rows[:, 4].tolist(), rows[:, 5].tolist(), strict=True):
            category = self.card.category_of(int(label))
            detections.append(Detection(category.id, category.name, score, (box[0], box[1], box[2], box[3])))
        return tuple(detections)

    # --- what is fixed -----------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def _lay_anchors(self) -> list[Tensor]:
        """Return each level's anchors, float32 [n, 4] in canvas pixels; they depend on the canvas alone."""
        side = self.card.canvas_px
        blank = torch.zeros((1, 3, side, side), device=self.device)
        features = [feature.float() for feature in self._model.backbone(blank.to(self._dtype)).values()]
        generator = self._model.rpn.anchor_generator
        anchors: Tensor = generator(ImageList(blank, [(side, side)]), features)[0]
        per_cell = generator.num_anchors_per_location()
        cells = [feature.shape[2] * feature.shape[3] for feature in features]
        return list(torch.split(anchors, [count * n for count, n in zip(cells, per_cell, strict=True)]))


def describe_device(device: str) -> str:
    """Say what a detector of this setting works on, for people."""
    chosen = _choose_device(device)
    return f"{chosen} ({torch.cuda.get_device_name(chosen)})" if chosen.type == "cuda" else str(chosen)


def _choose_device(device: str) -> torch.device:
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(device)


def choose_precision(device: torch.device) -> Literal["fp32", "bf16"]:
    """Return bf16 where the hardware multiplies it: elsewhere it is emulated, and slower than float32."""
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp32"
    return "bf16" if _cpu_multiplies_bf16() else "fp32"


def _cpu_multiplies_bf16() -> bool:
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def _bucket(count: int) -> int:
    """Return the least power of two that holds `count` images."""
    return 1 << (count - 1).bit_length()


def _clip(boxes_xyxy: Tensor, content: Tensor) -> Tensor:
    """Clip boxes [..., 4] to an image that spans (width, height) of `content`, [..., 2]."""
    return torch.minimum(boxes_xyxy.clamp(min=0), torch.cat((content, content), dim=-1))


def _at_least(boxes_xyxy: Tensor, side_px: float) -> Tensor:
    sides = boxes_xyxy[..., 2:] - boxes_xyxy[..., :2]
    return (sides >= side_px).all(-1)


@contextmanager
def _reporting_exhaustion() -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as exc:
        raise DeviceOutOfMemory from exc
    except RuntimeError as exc:
        if "can't allocate memory" not in str(exc):  # The CPU's allocator has no type of its own for it.
            raise
        raise DeviceOutOfMemory from exc
