"""The shapes of a person's chest in the body frame of `canvas`. Side -1 is the patient's right, +1 the left."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from shared.phantoms.canvas import Points, ellipse, points, ribbon, spline

Side = Literal[-1, 1]
SIDES: tuple[Side, Side] = (-1, 1)
RIBS = 10


@dataclass(frozen=True)
class Anatomy:
    """The properties that differ between persons."""

    #: Width of the rib cage; the mean is 1.
    breadth: float
    #: Width of the base of the chest; the mean is 1.
    bulge: float
    #: Height of the lung apices.
    apex_y: float
    #: Displacement of the diaphragm in body units: positive is lower (deep breath).
    breath: float
    #: Tops of the domes of the diaphragm, right and left.
    dome_y: tuple[float, float]
    #: The heart's ellipse: centre, half axes, and tilt in radians.
    heart_centre: tuple[float, float]
    heart_axes: tuple[float, float]
    heart_tilt: float
    #: The ellipse of the aortic knob: centre and half axes.
    aorta_centre: tuple[float, float]
    aorta_axes: tuple[float, float]
    rib_shift: float
    #: Strength of the breast shadows; 0 for none.
    breast: float
    #: Thickness of the soft tissue; the mean is 1.
    fat: float
    #: Centre and half axes of the gas bubble in the stomach; None if it is not visible.
    stomach: tuple[tuple[float, float], tuple[float, float]] | None

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Anatomy":
        """Draw the properties of a random healthy person."""
        breath = float(np.clip(rng.normal(0, 0.016), -0.035, 0.03))
        right_dome = 0.592 + breath + rng.normal(0, 0.006)
        left_dome = right_dome + rng.uniform(0.012, 0.03)
        half_width = rng.uniform(0.118, 0.137)
        return cls(
            breadth=rng.uniform(0.95, 1.08),
            bulge=rng.uniform(0.97, 1.06),
            apex_y=rng.uniform(0.112, 0.14),
            breath=breath,
            dome_y=(right_dome, left_dome),
            heart_centre=(half_width * rng.uniform(0.3, 0.38), right_dome - 0.045),
            heart_axes=(half_width, rng.uniform(0.085, 0.095)),
            heart_tilt=rng.uniform(0.25, 0.5),
            aorta_centre=(rng.uniform(0.03, 0.036), rng.uniform(0.29, 0.315)),
            aorta_axes=(rng.uniform(0.026, 0.03), rng.uniform(0.03, 0.034)),
            rib_shift=rng.normal(0, 0.008),
            breast=rng.uniform(0.4, 1.0) if rng.random() < 0.45 else 0.0,
            fat=rng.uniform(0.8, 1.25),
            stomach=(
                ((rng.uniform(0.12, 0.18), left_dome + rng.uniform(0.045, 0.06)), (rng.uniform(0.03, 0.06), 0.025))
                if rng.random() < 0.55
                else None
            ),
        )

    def wall(self, side: Side) -> Points:
        """Trace the inside of the chest wall from the apex of the lung to the costophrenic angle."""
        top, base = self.apex_y, self.bulge
        knots = points(
            *((0.028, top + 0.1), (0.045, top + 0.035), (0.1, top), (0.157, top + 0.018), (0.208, 0.205)),
            *((0.247, 0.3), (0.276, 0.42), (0.291 * base, 0.54), (0.296 * base, 0.64 + self.breath)),
            (0.297 * base, 0.668 + self.breath),
        )
        return spline(knots) * (side * self.breadth, 1)

    def diaphragm(self, side: Side) -> Points:
        """Trace the diaphragm from the costophrenic angle to the midline."""
        top, angle = self.dome_y[side > 0], 0.668 + self.breath
        knots = points(
            *(
                (0.297 * self.bulge, angle),
                (0.279 * self.bulge, (angle + top) / 2 + 0.012),
                (0.235, top + 0.012),
                (0.165, top),
            ),
            *((0.09, top + 0.01), (0.04, top + 0.028), (0.012, top + 0.045)),
        )
        return spline(knots) * (side * self.breadth, 1)

    def cavity(self, side: Side) -> Points:
        """Outline half of the chest cavity, from the wall to near the midline."""
        return np.concatenate([self.wall(side), self.diaphragm(side)])

    def heart(self) -> Points:
        """Outline the heart."""
        return ellipse(self.heart_centre, self.heart_axes, self.heart_tilt)

    def aorta(self) -> Points:
        """Outline the aortic knob."""
        return ellipse(self.aorta_centre, self.aorta_axes)

    def mediastinum(self) -> tuple[Points, ...]:
        """Outline the structures between the lungs; their union is opaque."""
        left_edge = self.heart_centre[0] + self.heart_axes[0] * 0.62
        vessels = spline(
            points(
                *((-0.05, 0.0), (-0.047, 0.14), (-0.05, 0.26), (-0.056, 0.36), (-0.062, 0.45), (-0.06, 0.75)),
                *((0.08, 0.75), (left_edge, 0.5), (0.082, 0.43), (0.066, 0.385), (0.052, 0.34), (0.046, 0.24)),
                *((0.05, 0.13), (0.05, 0.0)),
            )
        )
        return vessels, self.aorta(), self.heart()

    def hilum(self, side: Side) -> tuple[float, float]:
        """Locate the root of a lung; the left one is higher."""
        return (0.072 * side, 0.385 if side < 0 else 0.37)

    def torso(self) -> tuple[Points, ...]:
        """Outline trunk, neck and arms."""
        flank = 0.335 * self.breadth + 0.03 * self.fat
        trunk = [(0.07, -0.3), (0.078, 0.02), (0.12, 0.062), (0.24, 0.085), (0.36, 0.11), (flank, 0.3)]
        trunk += [(flank - 0.005, 0.5), (flank, 0.7), (flank + 0.01, 1.3)]
        side = spline(points(*trunk))
        arm = points(
            *((0.2, 0.12), (0.36, 0.108), (0.46, 0.19), (0.62, 0.45), (0.5, 0.6), (flank + 0.025, 0.4), (0.3, 0.42))
        )
        return np.concatenate([side, side[::-1] * (-1, 1)]), arm, arm * (-1, 1)

    def rib(self, index: int, side: Side) -> tuple[Points, Points]:
        """Outline rib `index` (0 is the highest): its rear arc, and its front arc down to the cartilage.

        A rib is a tilted half ellipse around the chest. In a frontal view, its rear arc runs outwards almost
        horizontally, turns at the wall, and returns in front at a lower level.
        """
        level = index / (RIBS - 1)
        top = 0.15 + self.rib_shift + 0.47 * level**0.95
        drop = 0.115 + 0.15 * min(1.0, 1.6 * level)
        wall = self.wall(side)[:, :] * (side, 1)
        reach = float(np.interp(min(top + 0.35 * drop, wall[-1, 1]), wall[20:, 1], wall[20:, 0])) + 0.004
        if index == 0:
            reach, drop = 0.12 * self.breadth, 0.075
        phi = np.linspace(0.07, 2.45 - 0.25 * level, 60)
        curve = np.stack([side * reach * np.sin(phi), top - 0.012 * np.sin(2 * phi) + drop * (1 - np.cos(phi)) / 2], 1)
        turn = 34
        rear = ribbon(curve[: turn + 4], 0.0095)
        front = ribbon(curve[turn:], np.linspace(0.0095, 0.0125, len(curve) - turn))
        return rear, front

    def clavicle(self, side: Side) -> Points:
        """Outline a clavicle."""
        knots = points((0.028, 0.192), (0.08, 0.184), (0.16, 0.158), (0.24, 0.138), (0.3, 0.132), (0.352, 0.14))
        curve = spline(knots * (side * self.breadth, 1))
        along = np.linspace(-1, 1, len(curve))
        return ribbon(curve, (0.0095 + 0.004 * along**2) * np.sqrt(1 - 0.95 * along**16))

    def scapula(self, side: Side) -> Points:
        """Outline a scapula."""
        knots = points(
            (0.25, 0.15), (0.262, 0.24), (0.29, 0.36), (0.312, 0.43), (0.335, 0.38), (0.35, 0.2), (0.34, 0.14)
        )
        return spline(knots * (side * self.breadth, 1))

    def humerus(self, side: Side) -> tuple[Points, Points]:
        """Outline the head and the shaft of a humerus."""
        shaft = ribbon(points((0.395, 0.18), (0.47, 0.33), (0.55, 0.5)), 0.02)
        return ellipse((0.385 * side, 0.165), (0.034, 0.036)), shaft * (side, 1)
