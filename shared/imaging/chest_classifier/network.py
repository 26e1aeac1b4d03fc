"""The forward pass of the classifier in NumPy: it has 1 M products, and PyTorch is too large for a decoder process."""

from collections.abc import Mapping

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

#: (output channels, kernel size) of each convolution. Each has stride 2, padding, and a ReLU.
CONVOLUTIONS = ((8, 5), (16, 3), (32, 3), (48, 3))


def prepare(rendition: NDArray[np.uint8], side_px: int) -> Floats:
    """Convert a rendition [H, W] to the network's input: [side, side], mean 0, standard deviation 1."""
    small = cv2.resize(rendition, (side_px, side_px), interpolation=cv2.INTER_AREA).astype(np.float32)
    return standardise(small)


def standardise(picture: Floats) -> Floats:
    """Normalise brightness and contrast; an image with a single value becomes 0."""
    centred = picture - picture.mean()
    return np.asarray(centred / max(float(centred.std()), 1e-6), np.float32)


def forward(weights: Mapping[str, Floats], picture: Floats) -> Floats:
    """Return the probabilities [classes] of an input [side, side] from `prepare`."""
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
