"""Runs a detector on batches: fixed shapes, no loop over images, and one copy to and from the device.

torchvision's `forward` resizes each image and pads the batch to its largest image. Here the canvas is fixed, so an
image's result does not depend on the rest of its batch. Each step processes the whole batch.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shared.detector import fitting
from shared.detector.card import ModelCard
from shared.detector.families import family_of
from shared.detector.families.abnormality import head_of, weigh
from shared.detector.fitting import FittedImage
from shared.detector.folding import fold_batch_norm
from shared.detector.weights import load_model
from shared.errors import DetectionFailed, DeviceOutOfMemory

Precision = Literal["auto", "fp32", "bf16"]


@dataclass(frozen=True)
class Detection:
    """A box that the model detected."""

    category_id: int
    category_name: str
    score: float
    #: In pixels of the rendition.
    box_xyxy_px: tuple[float, float, float, float]


@dataclass(frozen=True)
class ImageDetections:
    """What a model detected in one image."""

    #: Highest score first.
    detections: tuple[Detection, ...]
    #: The probability that the image shows any finding; None if the model has no abnormality head.
    abnormality: float | None = None


class Detector:
    """A model on a device. Only one thread at a time can call `detect`; `place` is thread-safe."""

    def __init__(self, card: ModelCard, weights: bytes, device: str = "auto", precision: Precision = "auto") -> None:
        self.card = card
        self.device = _choose_device(device)
        self.precision: Literal["fp32", "bf16"] = choose_precision(self.device) if precision == "auto" else precision
        with _reporting_exhaustion():
            model = load_model(card, weights).eval().requires_grad_(False)
            fold_batch_norm(model)
            model.to(self.device).to(memory_format=torch.channels_last)
            self._dtype = torch.bfloat16 if self.precision == "bf16" else torch.float32
            self._infer = family_of(card.architecture).make_inference(model, card, self._dtype)
            self._model: Any = model
            self._head = head_of(model)
            if self._head is not None:
                self._head.float()
            # [3, 1, 1] each, in units of the 8-bit canvas
            self._mean = 255 * torch.tensor(card.image_mean, device=self.device)[:, None, None]
            self._std = 255 * torch.tensor(card.image_std, device=self.device)[:, None, None]

    def fit_to_canvas(self, rendition: NDArray[np.uint8]) -> FittedImage:
        """Fit a rendition, uint8 [h, w], onto this model's canvas."""
        return fitting.fit_to_canvas(rendition, self.card.canvas_px)

    def detect(self, batch: Sequence[FittedImage]) -> list[ImageDetections]:
        """Return each image's detections in rendition pixels.

        Raises `DeviceOutOfMemory`, and `DetectionFailed` if scores of an image are NaN.
        """
        if not batch:
            return []
        with _reporting_exhaustion(), torch.inference_mode():
            canvases, content = self._upload(batch)
            rows = self._run(self._normalise(canvases), content).cpu().numpy()[: len(batch)]
        if np.isnan(rows).any():
            raise DetectionFailed("The model's scores are not numbers.")
        return [self._report(image, row) for image, row in zip(batch, rows, strict=True)]

    # --- steps -------------------------------------------------------------------------------------------------------

    def _upload(self, batch: Sequence[FittedImage]) -> tuple[Tensor, Tensor]:
        """Return canvases, uint8 [B, S, S], and their content's (width, height), float32 [B, 2], on the device.

        B is the next power of two, so there are few shapes and kernels are selected once for each. Extra canvases have
        no content.
        """
        side, pinned = self.card.canvas_px, self.device.type == "cuda"
        canvases = torch.zeros((_bucket(len(batch)), side, side), dtype=torch.uint8, pin_memory=pinned)
        content = torch.zeros((len(canvases), 2), pin_memory=pinned)
        pixels, sizes = canvases.numpy(), content.numpy()
        for place, image in enumerate(batch):
            pixels[place] = image.canvas
            sizes[place] = image.width_px * image.scale_x, image.height_px * image.scale_y
        return canvases.to(self.device, non_blocking=True), content.to(self.device, non_blocking=True)

    def _normalise(self, canvases: Tensor) -> Tensor:
        """Return canvases [B, S, S] as the network's images, [B, 3, S, S]."""
        grey = canvases[:, None].float()  # [B, 1, S, S]
        images = (grey - self._mean) / self._std
        return images.to(self._dtype, memory_format=torch.channels_last)

    def _run(self, images: Tensor, content: Tensor) -> Tensor:
        """Return detections, [B, D, 6]; with an abnormality head one row more, which holds the image's probability."""
        features = self._model.backbone(images)
        rows = self._infer(features, content)
        if self._head is None:
            return rows
        probabilities = self._head(features).sigmoid()
        weighed = weigh(rows, probabilities, self.card.abnormality_exponent or 0.0)
        return torch.cat((weighed, probabilities[:, None, None].expand(-1, 1, 6)), dim=1)

    def _report(self, image: FittedImage, rows: NDArray[np.float32]) -> ImageDetections:
        """Turn one image's rows, as `_run` returns them, into detections in rendition pixels."""
        abnormality = None
        if self._head is not None:
            abnormality, rows = float(rows[-1, 0]), rows[:-1]
            rows = rows[rows[:, 4] > self.card.score_threshold]  # again, because the scores are lower now
        rows = rows[rows[:, 5] > 0]
        scale = np.array([image.scale_x, image.scale_y] * 2)
        limit = np.array([image.width_px, image.height_px] * 2)
        boxes = np.clip(rows[:, :4] / scale, 0, limit)
        detections = []
        for box, score, label in zip(boxes.tolist(), rows[:, 4].tolist(), rows[:, 5].tolist(), strict=True):
            category = self.card.category_of(int(label))
            detections.append(Detection(category.id, category.name, score, (box[0], box[1], box[2], box[3])))
        return ImageDetections(tuple(detections), abnormality)


def describe_device(device: str) -> str:
    """Return a readable name of the device that a setting selects."""
    chosen = _choose_device(device)
    return f"{chosen} ({torch.cuda.get_device_name(chosen)})" if chosen.type == "cuda" else str(chosen)


def _choose_device(device: str) -> torch.device:
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(device)


def choose_precision(device: torch.device) -> Literal["fp32", "bf16"]:
    """Return bf16 if the hardware supports it; otherwise it would be emulated, and slower than float32."""
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp32"
    return "bf16" if _cpu_multiplies_bf16() else "fp32"


def _cpu_multiplies_bf16() -> bool:
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def _bucket(count: int) -> int:
    """Return the smallest power of two that is at least `count`."""
    return 1 << (count - 1).bit_length()


@contextmanager
def _reporting_exhaustion() -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as exc:
        raise DeviceOutOfMemory from exc
    except RuntimeError as exc:
        if "can't allocate memory" not in str(exc):  # The CPU allocator has no exception type for it.
            raise
        raise DeviceOutOfMemory from exc
