"""Draws the lesions of the fourteen classes: one function per class, from a site to a mark on the image."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from shared.phantoms.anatomy import Anatomy, Side
from shared.phantoms.canvas import Layer, Points, ellipse, lobulated, points, ribbon
from shared.phantoms.marks import Mark, Site
from shared.phantoms.scene import Scene


def _lung(scene: Scene, side: Side) -> Layer:
    return scene.lungs * scene.cavities[side]


def _solid(layer: Layer, strength: float) -> Mark:
    return Mark(np.float32(strength) * layer, layer)


def enlarge_heart(person: Anatomy, site: Site, rng: np.random.Generator) -> Anatomy:
    """Cardiomegaly: the heart is wider than half of the chest."""
    width = max(site.size[0], 0.33)
    centre = (0.048 + rng.normal(0, 0.006), person.dome_y[0] - 0.052)
    return replace(
        person,
        heart_centre=centre,
        heart_axes=(width / 2, 0.105 * (width / 0.33) ** 0.5),
        heart_tilt=rng.uniform(0.1, 0.25),
    )


def enlarge_aorta(person: Anatomy, site: Site, rng: np.random.Generator) -> Anatomy:
    """Aortic enlargement: the aortic knob bulges far into the left lung."""
    axes = (max(site.axes[0], 0.04), max(site.axes[1], 0.042))
    left_edge = 0.11 + rng.normal(0, 0.006) + 0.4 * (axes[0] - 0.04)
    return replace(person, aorta_centre=(left_edge - axes[0], person.aorta_centre[1]), aorta_axes=axes)


def atelectasis(scene: Scene, site: Site, rng: np.random.Generator) -> Mark:
    """A collapsed segment: a sharp-edged wedge with its tip at the root of the lung."""
    (x, y), (a, b), s = site.centre, site.axes, site.side
    tip, skew = (x - s * a, y - b * rng.uniform(0.5, 1.0)), rng.uniform(0.1, 0.35)
    wedge = points(tip, (x + s * a, y + b * skew), (x + s * a * 0.8, y + b), (x - s * a * 0.55, y + b))
    canvas = scene.canvas
    inside = _lung(scene, s)
    body = canvas.blur(canvas.fill(wedge), 0.0015) * inside
    fissure = canvas.blur(canvas.strokes([(wedge[:2], 0.006, 1.0)]), 0.001) * inside
    return Mark(np.float32(0.42) * body + np.float32(0.22) * fissure, body)


def calcification(scene: Scene, site: Site, rng: np.random.Generator) -> Mark:
    """A cluster of small, very bright spots."""
    (x, y), (a, b) = site.centre, site.axes
    specks = []
    for _ in range(int(rng.integers(5, 9))):
        angle, radius = rng.uniform(0, 2 * np.pi), np.sqrt(rng.random()) * 0.8
        size = rng.uniform(0.0035, 0.0065)
        at = (x + a * radius * np.cos(angle), y + b * radius * np.sin(angle))
        specks.append(lobulated(at, (size, size * rng.uniform(0.7, 1)), rng, 0.25))
    return _solid(scene.canvas.blur(scene.canvas.fill(*specks), 0.0008), 1.5)


def consolidation(scene: Scene, site: Site, rng: np.random.Generator) -> Mark:
    """Airspace filled with fluid: a dense, lobed area with branching dark bronchi, which contain air."""
    canvas, (x, y), (a, b) = scene.canvas, site.centre, site.axes
    outline = lobulated(site.centre, site.axes, rng, 0.09)
    body = canvas.blur(canvas.fill(outline), 0.004) * _lung(scene, site.side)
    root = np.array([x - site.side * a * 0.85, y - b * 0.2])
    bronchi: list[tuple[Points, float, float]] = []
    for heading in np.linspace(-0.7, 0.9, 4) + rng.normal(0, 0.08, 4):
        reach = np.array([site.side * np.cos(heading) * a, np.sin(heading) * b])
        middle = root + reach * 0.8
        bronchi.append((np.stack([root, middle]), 0.0075, 1.0))
        fork = np.array([site.side * np.cos(heading + 0.5) * a, np.sin(heading + 0.5) * b])
        bronchi.append((np.stack([middle, middle + 0.6 * fork]), 0.0055, 1.0))
        bronchi.append((np.stack([middle, middle + 0.6 * reach]), 0.005, 1.0))
    air = canvas.blur(canvas.strokes(bronchi), 0.0014)
    return Mark(np.float32(0.75) * body * (1 - np.float32(0.75) * air), body)


def interstitial_disease(scene: Scene, site: Site, rng: np.random.Generator) -> Mark:
    """ILD: a fine network of thin lines over a large part of the lung."""
    canvas = scene.canvas
    region = canvas.blur(canvas.fill(lobulated(site.centre, site.axes, rng, 0.05)), 0.008) * _lung(scene, site.side)
    net = np.exp(-np.square(canvas.field(rng, 0.0085) / np.float32(0.3)))
    return Mark(region * (np.float32(0.03) + np.float32(0.4) * net), region)


def infiltration(scene: Scene, site: Site, rng: np.random.Generator) -> Mark:
    """Patchy shadows without a border: a loose group of soft clouds."""
    canvas, (x, y), (a, b) = scene.canvas, site.centre, site.axes
    clouds = np.zeros((canvas.height_px, canvas.width_px), np.float32)
    count = int(rng.integers(6, 9))
    turn = rng.uniform(0, 2 * np.pi)
    for index in range(count):
        angle, radius = turn + 2.4 * index, np.sqrt((index + 0.5) / count) * 0.8
        at = (x + a * radius * np.cos(angle), y + b * radius * np.sin(angle))
        size = np.clip(min(a, b) * rng.uniform(0.2, 0.32), 0.011, 0.026)
        clouds += canvas.fill(lobulated(at, (size, size), rng, 0.15))
    clouds = canvas.blur(np.minimum(clouds, 1), 0.0065) * _lung(scene, site.side)
    return _solid(clouds, 0.5)


def lung_opacity(scene: Scene, site: Site, rng: np.random.Generator) -> Mark:
    """A smooth, even haze; the vessels stay visible."""
    canvas = scene.canvas
    haze = canvas.fill(lobulated(site.centre, site.axes, rng, 0.04))
    haze = canvas.blur(haze, 0.22 * min(site.axes)) * _lung(scene, site.side)
    return _solid(haze, 0.42)


def nodule(scene: Scene, site: Site, rng: np.random.Generator) -> Mark:
    """A sphere with a sharp border."""
    radius = float(np.sqrt(site.axes[0] * site.axes[1]))
    canvas = scene.canvas
    outline = lobulated(site.centre, (radius, radius * rng.uniform(0.88, 1)), rng, 0.02)
    return _solid(canvas.blur(canvas.fill(outline), 0.0015), 0.55)


def cyst(scene: Scene, site: Site, rng: np.random.Generator) -> Mark:
    """Other lesion: a thin-walled cyst with air, and a fluid level at its bottom."""
    canvas, (x, y) = scene.canvas, site.centre
    a = b = float(np.sqrt(site.axes[0] * site.axes[1]))
    b *= rng.uniform(0.85, 1.0)
    outer = canvas.fill(ellipse(site.centre, (a, b)))
    wall = max(0.004, 0.1 * a)
    inner = canvas.fill(ellipse(site.centre, (a - wall, b - wall)))
    level = y + b * rng.uniform(0.25, 0.45)
    fluid = inner * canvas.fill(points((x - a, level), (x + a, level), (x + a, y + b), (x - a, y + b)))
    density = np.float32(0.6) * (outer - inner) - np.float32(0.12) * (inner - fluid) + np.float32(0.42) * fluid
    return Mark(canvas.blur(density, 0.001), outer, cleared=inner)


def effusion(scene: Scene, site: Site, rng: np.random.Generator) -> Mark:
    """Fluid in the pleural space: white from the costophrenic angle up to a meniscus, which rises at the wall."""
    wall, dome = scene.anatomy.wall(site.side), scene.anatomy.diaphragm(site.side)
    angle, inward = wall[-1], -site.side
    inner_x = angle[0] + inward * site.size[0]
    dome_y = float(np.interp(abs(inner_x), np.abs(dome[::-1, 0]), dome[::-1, 1]))
    top = min(angle[1] - site.size[1], dome_y - 0.03)
    t = np.linspace(0, 1, 24)
    outer_x = float(np.interp(top, wall[20:, 1], wall[20:, 0]))
    sag = 1 - (1 - t) ** rng.uniform(2.0, 2.8)
    surface = np.stack([outer_x + (inner_x - outer_x) * t, top + (dome_y + 0.004 - top) * sag], axis=1)
    outline = np.concatenate([surface, [[inner_x, angle[1]], [angle[0] - 0.05 * inward, angle[1]]]])
    outline = np.concatenate([outline, [[angle[0] - 0.05 * inward, top]]])
    canvas = scene.canvas
    fluid = canvas.blur(canvas.fill(outline), 0.002) * _lung(scene, site.side)
    return _solid(fluid, 0.85)


def pleural_thickening(scene: Scene, site: Site, rng: np.random.Generator) -> Mark:
    """A bright, uneven layer along the inside of the chest wall, most often over the apex."""
    canvas, wall = scene.canvas, scene.anatomy.wall(site.side)
    nearest = int(np.argmin(np.linalg.norm(wall - np.array(site.centre), axis=1)))
    nearest = int(np.clip(nearest, 16, len(wall) - 22))
    length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(wall, axis=0), axis=1))])
    reach = max(*site.axes, 0.045)
    part = wall[np.abs(length - length[nearest]) < reach]
    taper = np.sqrt(np.maximum(0, 1 - np.linspace(-1, 1, len(part)) ** 4))
    waver = 1 + 0.15 * np.sin(np.linspace(0, rng.uniform(6, 14), len(part)) + rng.uniform(0, 6))
    rind = canvas.fill(ribbon(part, np.clip(min(site.size), 0.017, 0.024) * taper * waver))
    return _solid(canvas.blur(rind, 0.0012) * _lung(scene, site.side), 0.62)


def pneumothorax(scene: Scene, site: Site, rng: np.random.Generator) -> Mark:
    """Air around a collapsed lung: black, without vessels, outside the thin bright line of the pleura."""
    canvas, s = scene.canvas, site.side
    wall = scene.anatomy.wall(s)
    bottom = wall[0, 1] + np.clip(site.size[1], 0.16, 0.36)
    gap = np.clip(site.size[0] * 0.33, 0.05, 0.085)
    outer = wall[6:][wall[6:, 1] < bottom]
    closing = np.sqrt(np.clip(np.linspace(1, 0, len(outer)) * 2.5, 0, 1))[:, None]
    pleura = outer + closing * points((-0.75 * s * gap, gap))
    rim = canvas.blur(canvas.fill(np.concatenate([outer, pleura[::-1]])), 0.001) * _lung(scene, s)
    line = canvas.blur(canvas.strokes([(pleura, 0.0035, 1.0)]), 0.0008) * _lung(scene, s)
    return Mark(np.float32(0.42) * line - np.float32(0.2) * rim, rim, cleared=rim)


def fibrosis(scene: Scene, site: Site, rng: np.random.Generator) -> Mark:
    """Scars: coarse, irregular strands that spread from the side of the root, and small rings (honeycombing)."""
    canvas, (x, y), (a, b) = scene.canvas, site.centre, site.axes
    root = np.array([x - site.side * 0.95 * a, y + rng.uniform(-0.4, 0.4) * b])
    strands: list[tuple[Points, float, float]] = []
    for heading in np.linspace(-1.5, 1.5, 8) + rng.normal(0, 0.08, 8):
        end = np.array([x + site.side * a * np.cos(heading), y + b * np.sin(heading)])
        line = root + np.linspace(0, 1, 6)[:, None] * (end - root)
        line[1:-1] += rng.normal(0, 0.0035, (4, 2))
        strands.append((line, rng.uniform(0.0028, 0.0042), 1.0))
    for _ in range(9):
        at = (x + site.side * a * rng.uniform(-0.2, 0.85), y + b * rng.uniform(-0.7, 0.7))
        radius = rng.uniform(0.006, 0.0095)
        ring = ellipse(at, (radius, radius), steps=16)
        strands.append((np.concatenate([ring, ring[:1]]), 0.003, 1.0))
    scars = canvas.blur(canvas.strokes(strands), 0.0008) * _lung(scene, site.side)
    return Mark(np.float32(0.6) * scars, scars)


#: Classes 0 and 3 change the anatomy before anything is drawn.
RESHAPE: dict[int, Callable[[Anatomy, Site, np.random.Generator], Anatomy]] = {0: enlarge_aorta, 3: enlarge_heart}
#: All other classes add a mark to the scene.
DRAW: dict[int, Callable[[Scene, Site, np.random.Generator], Mark]] = {
    1: atelectasis,
    2: calcification,
    4: consolidation,
    5: interstitial_disease,
    6: infiltration,
    7: lung_opacity,
    8: nodule,
    9: cyst,
    10: effusion,
    11: pleural_thickening,
    12: pneumothorax,
    13: fibrosis,
}


def outline_of(class_id: int, person: Anatomy) -> Points:
    """Outline the organ that a class in `RESHAPE` enlarges."""
    return person.heart() if class_id == 3 else person.aorta()
