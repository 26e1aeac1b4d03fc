"""The classifier's forward pass in NumPy: a decoder process has no room for PyTorch, and 1 M products need none."""

from collections.abc import Mapping

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

#: (channels out, side of the kernel) of each convolution; every one has a stride of 2, its padding and a ReLU.
CONVOLUTIONS = ((8, 5), (16, 3), (32, 3), (48, 3))


def prepare(rendition: NDArray[np.uint8], side_px: int) -> Floats:
    """Shrink a rendition [H, W] to what the network sees: [side, side], its mean 0 and its deviation 1."""
    small = cv2.resize(rendition, (side_px, side_px), interpolation=cv2.INTER_AREA).astype(np.float32)
    return standardise(small)


def standardise(picture: Floats) -> Floats:
    """Take brightness and contrast out of a picture; one of a single value becomes 0."""
    centred = picture - picture.mean()
    return np.asarray(centred / max(float(centred.std()), 1e-6), np.float32)


def forward(weights: Mapping[str, Floats], picture: Floats) -> Floats:
    """Probabilities [classes] of a picture [side, side] from `prepare`."""
    maps = picture[None]  # [C, H, W]
    for index, (_, kernel_px) in enumerate(CONVOLUTIONS):
        pad = kernel_px // 2
        padded = np.pad(maps, ((0, 0), (pad, pad), (pad, pad)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (kernel_px, kernel_px), (1, 2))[:, ::2, ::2]
        kernels, bias = weights[f"convolutions.{index}.weight"], weights[f"convolutions.{index}.bias"]
        patches = windows.transpose(0, 3, 4, 1, 2).reshape(kernels[0].size, -1)
        height, width = windows.shape[1:3]
        maps = (kernels.reshape(len(kernels), -1) @ patches + bias[:, None]).reshape(-1, height, width)
        np.maximum(maps, 0, out=maps)
    logits = weights["classes.weight"] @ maps.ravel() + weights["classes.bias"]
    shares = np.exp(logits - logits.max())
    return np.asarray(shares / shares.sum(), np.float32)
