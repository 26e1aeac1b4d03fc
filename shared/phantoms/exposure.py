"""Converts density to an image: exposure, collimation, side marker and noise."""

from dataclasses import dataclass

import cv2
import numpy as np

from shared.phantoms.canvas import ASPECT, Canvas, Layer, points


@dataclass(frozen=True)
class Exposure:
    """The parameters of the acquisition."""

    #: Optical depth per unit of density.
    gain: float
    #: Exponent of the response curve; values above 1 darken the lungs.
    gamma: float
    #: Brightness without any tissue.
    fog: float
    #: Standard deviation of the noise at mean brightness.
    noise: float
    #: The collimator's opening in the body frame (left, top, right, bottom); None if its edges are not visible.
    opening: tuple[float, float, float, float] | None
    #: 'L' or 'R', and its position in the body frame.
    marker: str
    marker_at: tuple[float, float]
    #: Zoom, shift in body units, and rotation in radians of the patient in the image.
    zoom: float
    shift: tuple[float, float]
    turn: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Exposure":
        """Draw the parameters of a random typical image."""
        marker = "L" if rng.random() < 0.6 else "R"
        side = 1 if marker == "L" else -1
        opening = (-rng.uniform(0.385, 0.408), rng.uniform(0.008, 0.03), rng.uniform(0.385, 0.408), 0.985)
        return cls(
            gain=rng.uniform(1.1, 1.6),
            gamma=rng.uniform(0.95, 1.35),
            fog=rng.uniform(0.01, 0.05),
            noise=rng.uniform(0.007, 0.014),
            opening=opening if rng.random() < 0.3 else None,
            marker=marker,
            marker_at=(side * rng.uniform(0.31, 0.35), rng.uniform(0.076, 0.092)),
            zoom=rng.uniform(0.98, 1.09),
            shift=(rng.normal(0, 0.01), rng.normal(0, 0.012)),
            turn=rng.normal(0, 0.018),
        )

    def canvas(self, height_px: int, width_px: int) -> Canvas:
        """Return a canvas of this size over the patient; it contains the whole chest of the nominal image."""
        nominal = min(height_px, width_px / ASPECT)
        scale = nominal * self.zoom
        # The body is zoomed and rotated around the centre of the chest, then shifted.
        middle = points((0.0, 0.4))
        still = Canvas(height_px, width_px, scale, (0.0, 0.0), self.turn).to_px(middle)[0]
        x = width_px / 2 + self.shift[0] * nominal - still[0]
        y = (height_px - nominal) / 2 + (0.4 + self.shift[1]) * nominal - still[1]
        return Canvas(height_px, width_px, scale, (float(x), float(y)), self.turn)

    def develop(self, density: Layer, canvas: Canvas) -> Layer:
        """Convert density to brightness, 0–1; dense tissue is bright."""
        bright = self.brightness(density)
        if self.opening:
            left, top, right, bottom = self.opening
            frame = canvas.fill(points((left, top), (right, top), (right, bottom), (left, bottom)))
            bright = bright * frame + 0.02 * (1 - frame)
        image: Layer = np.maximum(bright, np.float32(0.93) * self._marker(canvas))
        return image

    def brightness(self, density: Layer) -> Layer:
        """Return the brightness of tissue of this density, without collimator and marker."""
        bright: Layer = np.power(1 - np.exp(-self.gain * np.maximum(density, 0)), np.float32(self.gamma))
        return np.asarray(self.fog + (0.97 - self.fog) * bright, np.float32)

    def density(self, bright: Layer) -> Layer:
        """Return the density of tissue of this brightness: the inverse of `brightness`, within its range."""
        passed = np.clip((bright - self.fog) / (0.97 - self.fog), 0, 0.995) ** (1 / self.gamma)
        return np.asarray(-np.log(1 - passed) / self.gain, np.float32)

    def _marker(self, canvas: Canvas) -> Layer:
        mask = np.zeros((canvas.height_px, canvas.width_px), np.uint8)
        x, y = canvas.to_px(points(self.marker_at))[0]
        thickness = max(1, round(0.0055 * canvas.scale))
        size = 0.0016 * canvas.scale
        cv2.putText(mask, self.marker, (int(x), int(y)), cv2.FONT_HERSHEY_SIMPLEX, size, 255, thickness, cv2.LINE_AA)
        return np.multiply(mask, np.float32(1 / 255), dtype=np.float32)

    def grain(self, bright: Layer, rng: np.random.Generator) -> Layer:
        """Add the detector's noise, which is stronger where fewer photons arrive."""
        noise = rng.standard_normal(bright.shape, dtype=np.float32)
        noise *= np.float32(self.noise) * (np.float32(0.6) + np.float32(0.8) * bright)
        noise += bright
        return np.clip(noise, 0, 1, out=noise)
