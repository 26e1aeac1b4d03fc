"""Draws in the body frame, at any resolution.

The body frame has its origin at the top centre of a nominal 5:6 image. x points to the right of the image (the
patient's left), and y down. The unit is the height of the nominal image, which spans x in ±5/12 and y in 0–1.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Layer = NDArray[np.float32]
Points = NDArray[np.float64]

#: The width of the nominal image divided by its height.
ASPECT = 5 / 6
_SUBPIXEL_BITS = 4


def points(*pairs: tuple[float, float]) -> Points:
    """Return (x, y) pairs as float64 [N, 2]."""
    return np.array(pairs, dtype=np.float64)


def spline(knots: Points, steps: int = 12) -> Points:
    """Return a Catmull-Rom curve through the knots [K, 2], as [(K - 1) * steps + 1, 2]."""
    padded = np.concatenate([2 * knots[:1] - knots[1:2], knots, 2 * knots[-1:] - knots[-2:-1]])
    t = np.linspace(0, 1, steps, endpoint=False)[:, None, None]
    a, b, c, d = (padded[i : len(padded) - 3 + i] for i in range(4))
    curve = 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
    return np.concatenate([curve.transpose(1, 0, 2).reshape(-1, 2), knots[-1:]])


def ribbon(curve: Points, half_width: float | NDArray[np.float64]) -> Points:
    """Widen a curve [N, 2] to a closed band; `half_width` can vary along it."""
    tangent = np.gradient(curve, axis=0)
    normal = np.stack([-tangent[:, 1], tangent[:, 0]], axis=1) / np.linalg.norm(tangent, axis=1, keepdims=True)
    offset = normal * np.broadcast_to(half_width, len(curve))[:, None]
    return np.concatenate([curve + offset, (curve - offset)[::-1]])


def ellipse(centre: tuple[float, float], axes: tuple[float, float], tilt: float = 0.0, steps: int = 72) -> Points:
    """Outline an ellipse with half axes `axes`, rotated clockwise by `tilt` radians."""
    t = np.linspace(0, 2 * np.pi, steps, endpoint=False)
    x, y = axes[0] * np.cos(t), axes[1] * np.sin(t)
    x, y = x * np.cos(tilt) - y * np.sin(tilt) + centre[0], x * np.sin(tilt) + y * np.cos(tilt) + centre[1]
    return np.stack([x, y], axis=1)


def lobulated(
    centre: tuple[float, float], axes: tuple[float, float], rng: np.random.Generator, roughness: float
) -> Points:
    """Outline an ellipse whose radius varies by a share of about `roughness`."""
    angle = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    radius = np.ones_like(angle)
    for lobes in range(2, 7):
        radius += roughness * rng.normal() / lobes * np.cos(lobes * angle + rng.uniform(0, 2 * np.pi))
    x, y = axes[0] * radius * np.cos(angle), axes[1] * radius * np.sin(angle)
    return np.stack([centre[0] + x, centre[1] + y], axis=1)


@dataclass(frozen=True)
class Canvas:
    """A grid of pixels over the body frame."""

    height_px: int
    width_px: int
    #: Pixels per unit of the body frame.
    scale: float
    #: The pixel at the origin of the body frame.
    origin_px: tuple[float, float]
    #: Clockwise rotation of the body, in radians.
    turn: float = 0.0

    @property
    def matrix(self) -> NDArray[np.float64]:
        """The affine map from the body frame to pixels, [2, 3]."""
        cos, sin = self.scale * np.cos(self.turn), self.scale * np.sin(self.turn)
        return np.array([[cos, -sin, self.origin_px[0]], [sin, cos, self.origin_px[1]]])

    def to_px(self, where: Points) -> Points:
        """Map body points [N, 2] to pixels."""
        return where @ self.matrix[:, :2].T + self.matrix[:, 2]

    def fill(self, *outlines: Points) -> Layer:
        """Fill the union of closed outlines with 1 on a background of 0."""
        mask = np.zeros((self.height_px, self.width_px), np.uint8)
        for outline in outlines:
            fixed = np.round(self.to_px(outline) * 2**_SUBPIXEL_BITS).astype(np.int32)
            cv2.fillPoly(mask, [fixed], 255, cv2.LINE_AA, _SUBPIXEL_BITS)
        return np.multiply(mask, np.float32(1 / 255), dtype=np.float32)

    def strokes(self, lines: Sequence[tuple[Points, float, float]]) -> Layer:
        """Draw polylines, each with its width and strength; lines thinner than a pixel are drawn fainter instead."""
        mask = np.zeros((self.height_px, self.width_px), np.uint8)
        for line, width, strength in lines:
            fixed = np.round(self.to_px(line) * 2**_SUBPIXEL_BITS).astype(np.int32)
            width_px = width * self.scale
            ink = int(255 * strength * min(1.0, max(width_px, 0.3)))
            cv2.polylines(mask, [fixed], False, ink, max(1, round(width_px)), cv2.LINE_AA, _SUBPIXEL_BITS)
        return np.multiply(mask, np.float32(1 / 255), dtype=np.float32)

    def blur(self, layer: Layer, sigma: float) -> Layer:
        """Blur with a Gaussian of `sigma` body units; a wide blur uses a coarser grid, which is faster."""
        sigma_px = sigma * self.scale
        if sigma_px < 0.3:
            return layer
        shrink = int(sigma_px // 3)
        if shrink <= 1:
            return cv2.GaussianBlur(layer, (0, 0), sigma_px, borderType=cv2.BORDER_REPLICATE).astype(np.float32)
        coarse = cv2.resize(
            layer, (-(-self.width_px // shrink), -(-self.height_px // shrink)), interpolation=cv2.INTER_AREA
        )
        coarse = cv2.GaussianBlur(coarse, (0, 0), sigma_px / shrink, borderType=cv2.BORDER_REPLICATE)
        return cv2.resize(coarse, (self.width_px, self.height_px), interpolation=cv2.INTER_LINEAR).astype(np.float32)

    def depth(self, mask: Layer) -> Layer:
        """Return the distance of each pixel to the edge of the mask, in body units; 0 outside the mask."""
        inside = cv2.distanceTransform((mask > 0.5).astype(np.uint8), cv2.DIST_L2, 3)
        return (inside / self.scale).astype(np.float32)

    def field(self, rng: np.random.Generator, cell: float) -> Layer:
        """Draw smooth noise of unit variance with grains about `cell` body units wide."""
        count = int(np.ceil(1.2 / cell))
        grid = rng.standard_normal((count, count), dtype=np.float32)
        from_grid = np.array([[cell, 0, -0.6], [0, cell, -0.1], [0, 0, 1]])
        return cv2.warpAffine(
            grid,
            self.matrix @ from_grid,
            (self.width_px, self.height_px),
            flags=cv2.INTER_CUBIC,
            borderMode=cv2.BORDER_REFLECT,
        ).astype(np.float32)

    def rows(self) -> Layer:
        """Return each pixel's y in the body frame; the rotation is ignored."""
        y = (np.arange(self.height_px, dtype=np.float32) - np.float32(self.origin_px[1])) / np.float32(self.scale)
        return np.broadcast_to(y[:, None], (self.height_px, self.width_px))
