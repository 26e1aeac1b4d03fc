"""A healthy chest as layers of X-ray density, to which lesions are added."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from shared.phantoms.anatomy import RIBS, SIDES, Anatomy, Side
from shared.phantoms.canvas import Canvas, Layer, Points, ellipse, points, ribbon

VERTEBRAE = 18
VERTEBRA_HEIGHT = 0.058


@dataclass(frozen=True)
class Scene:
    """One person on one canvas. Masks are float32 [H, W] in 0–1. Densities are summed along the ray."""

    canvas: Canvas
    anatomy: Anatomy

    @cached_property
    def mediastinum(self) -> Layer:
        """The mask of the region between the lungs."""
        return self.canvas.blur(self.canvas.fill(*self.anatomy.mediastinum()), 0.0025)

    @cached_property
    def cavities(self) -> dict[Side, Layer]:
        """The mask of each half of the chest cavity."""
        return {side: self.canvas.fill(self.anatomy.cavity(side)) for side in SIDES}

    @cached_property
    def lungs(self) -> Layer:
        """The mask of the lungs: the chest cavity without the mediastinum."""
        inside = self.canvas.blur(np.maximum(self.cavities[-1], self.cavities[1]), 0.0022)
        return inside * (1 - self.mediastinum)

    @cached_property
    def gas(self) -> Layer:
        """The density of air outside the lungs: trachea, main bronchi, and often a bubble in the stomach."""
        airways = self.canvas.blur(self.canvas.fill(*_airways(self.anatomy)), 0.003)
        if not self.anatomy.stomach:
            return np.float32(0.2) * airways
        bubble = self.canvas.fill(ellipse(*self.anatomy.stomach)) * (1 - self.lungs)
        return np.float32(0.2) * airways + np.float32(0.5) * self.canvas.blur(bubble, 0.004)

    def tissue(self, rng: np.random.Generator) -> Layer:
        """Return the density of soft tissue, reduced by the air in the lungs."""
        canvas, person = self.canvas, self.anatomy
        torso = canvas.fill(*person.torso())
        depth = np.minimum(canvas.depth(torso) / 0.2, 1)
        body = torso * (0.22 + (0.75 + 0.25 * person.fat) * np.sqrt(depth * (2 - depth)))
        # The abdomen is thicker than the shoulders. The centre of a lung holds most air.
        body *= 0.88 + 0.3 / (1 + np.exp(-(canvas.rows() - 0.6) / 0.06))
        deep = np.minimum(canvas.depth(self.lungs) / 0.05, 1)
        air = self.lungs * (0.66 + 0.13 * np.sqrt(deep))
        body *= 1 + np.float32(0.018) * (canvas.field(rng, 0.05) + canvas.field(rng, 0.11))
        # The heart is in front of air, so it is slightly less dense than the abdomen.
        air += 0.12 * canvas.blur(canvas.fill(person.heart()), 0.004) * np.maximum(self.cavities[-1], self.cavities[1])
        density = body * (1 - air) - self.gas
        if person.breast:
            density += person.breast * self._breasts()
        return canvas.blur(density, 0.002)

    def _breasts(self) -> Layer:
        shadow = np.zeros((self.canvas.height_px, self.canvas.width_px), np.float32)
        for side in SIDES:
            mask = self.canvas.fill(ellipse((0.2 * side, 0.58), (0.125, 0.14)))
            shadow += np.float32(0.14) * np.sqrt(np.minimum(self.canvas.depth(mask) / 0.1, 1))
        return shadow

    def bones(self) -> Layer:
        """Return the density of ribs, spine, clavicles, scapulae and humeri."""
        canvas, person = self.canvas, self.anatomy
        ribs = [person.rib(index, side) for index in range(RIBS) for side in SIDES]
        bones = _shell(canvas, [rear for rear, _ in ribs], 0.1, 0.1)
        bones += _shell(canvas, [front for _, front in ribs], 0.045, 0.065)
        bones += _shell(canvas, [person.clavicle(side) for side in SIDES], 0.13, 0.11)
        bones += _shell(canvas, [person.scapula(side) for side in SIDES], 0.04, 0.09)
        bones += _shell(canvas, [part for side in SIDES for part in person.humerus(side)], 0.22, 0.1)
        bones += _shell(canvas, _vertebrae(), 0.09, 0.11)
        return canvas.blur(bones, 0.0012)

    def vessels(self, rng: np.random.Generator) -> Layer:
        """Return the density of the lung vessels, which spread from each root and taper."""
        lines: list[tuple[Points, float, float]] = []
        for side in SIDES:
            root = np.array(self.anatomy.hilum(side))
            for heading in np.linspace(-1.4, 1.5, 11):
                start = root + rng.normal(0, 0.013, 2)
                _branch(lines, start, heading + rng.normal(0, 0.1), rng.uniform(0.007, 0.0105), side, rng)
        knots = [self.canvas.fill(ellipse(self.anatomy.hilum(side), (0.026, 0.05))) for side in SIDES]
        tree = np.float32(0.24) * self.canvas.blur(self.canvas.strokes(lines), 0.0011)
        hila = np.float32(0.2) * self.canvas.blur(knots[0] + knots[1], 0.014)
        mottle = np.float32(0.012) * (self.canvas.field(rng, 0.012) + self.canvas.field(rng, 0.03))
        markings: Layer = (tree + hila + mottle) * self.lungs
        return markings


def _shell(canvas: Canvas, outlines: list[Points], inside: float, edge: float) -> Layer:
    """Fill bones, with a higher density along the cortex."""
    full = canvas.fill(*outlines)
    core = canvas.blur(full, 0.0035)
    rim: Layer = np.maximum(full - core, 0)
    return np.float32(inside) * full + np.float32(2 * edge) * rim


def _vertebrae() -> list[Points]:
    bodies = []
    for index in range(VERTEBRAE):
        top, half = 0.02 + index * VERTEBRA_HEIGHT, 0.021 + 0.0006 * index
        bottom, middle = top + VERTEBRA_HEIGHT - 0.009, top + VERTEBRA_HEIGHT / 2
        outline = [(-half, top), (half, top), (half - 0.002, middle), (half, bottom), (-half, bottom)]
        bodies.append(points(*outline, (-half + 0.002, middle)))
    return bodies


def _airways(person: Anatomy) -> list[Points]:
    carina = (0.004, 0.335)
    trachea = ribbon(points((0, -0.05), (-0.002, 0.15), carina), 0.0125)
    return [trachea, *(ribbon(points(carina, person.hilum(side)), 0.009) for side in SIDES)]


def _branch(
    lines: list[tuple[Points, float, float]],
    start: Points,
    heading: float,
    width: float,
    side: Side,
    rng: np.random.Generator,
) -> None:
    """Add a vessel from `start` that forks every few steps; `heading` 0 is outwards, negative is upwards."""
    while width > 0.0014:
        length = 0.03 * (width / 0.009) ** 0.35 * rng.uniform(0.8, 1.2)
        heading += rng.normal(0, 0.16)
        end = start + length * np.array([side * np.cos(heading), np.sin(heading)])
        lines.append((np.stack([start, end]), width, min(1.0, width / 0.009)))
        if rng.random() < 0.55:
            _branch(lines, end, heading + rng.choice((-1, 1)) * rng.uniform(0.35, 0.75), width * 0.62, side, rng)
        start, width = end, width * 0.83
