"""Images computed from a CT: real anatomy from any side. They replace lateral radiographs, which are not at hand.

Rays run in parallel, one slice gives one row, and the sum along a ray goes through a film curve. Such an image is
no radiograph (there is no scatter, the arms are up and the table is in it), but its large shapes are a patient's.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from deploy.tools.chest_classifier.pictures import NothingToLearnFrom

Floats = NDArray[np.float32]

_FEWEST_SLICES = 16
#: Rays through more than this, in mm of water, meet the body.
_BODY_MM = 30
#: Below this, in Hounsfield units, is the air around the patient.
_AIR_HU = -950
#: Optical depth of a millimetre of water at the energy of a chest image.
_WATER_PER_MM = 0.018


def read_ct(folder: Path) -> tuple[Floats, float, float]:
    """A CT from a folder of DICOM slices: its density, from slice to slice and from pixel to pixel in mm.

    The density is [slices from the head down, H, W], 1 is water. Raises `NothingToLearnFrom` where the
    folder holds no CT of at least 16 slices.
    """
    slices = [item for path in sorted(folder.iterdir()) if path.is_file() and (item := _read_slice(path)) is not None]
    if len(slices) < _FEWEST_SLICES:
        raise NothingToLearnFrom(f"{folder} holds no CT of at least {_FEWEST_SLICES} slices.")
    slices.sort(key=lambda item: -float(item.ImagePositionPatient[2]))
    hounsfield = np.stack([item.pixel_array * item.RescaleSlope + item.RescaleIntercept for item in slices])
    density = np.where(hounsfield < _AIR_HU, 0, 1 + hounsfield / 1000).astype(np.float32)
    slice_mm = abs(float(slices[0].ImagePositionPatient[2]) - float(slices[1].ImagePositionPatient[2]))
    return density, slice_mm, float(slices[0].PixelSpacing[0])


def views(density: Floats, slice_mm: float, pixel_mm: float) -> dict[str, list[Floats]]:
    """Pictures [H, W] in 0–1 by kind, none of them a frontal chest."""
    # Between 50 and 130 degrees from the front neither lung stands free beside the heart.
    aside = [*range(50, 131, 8), *range(230, 311, 8)]
    belly = density[round(0.64 * len(density)) :]
    shown = [(0.85, 1.25), (0.0, 1.4)]  # soft tissue, and lungs to bone
    return {
        "lateral": list(project(density, slice_mm, pixel_mm, aside, (0.3, 0.5, 0.9))),
        "belly": list(project(belly, slice_mm, pixel_mm, (-5, 0, 5, 180), (0.3, 0.6))),
        "slices": [np.clip((item - low) / (high - low), 0, 1) for item in density[::6] for low, high in shown],
    }


def project(
    density: Floats, slice_mm: float, pixel_mm: float, angles_degree: Sequence[float], contrasts: Sequence[float]
) -> Iterator[Floats]:
    """Images [H, W] in 0–1, bright where dense, of the body turned about its axis; 0 is frontal, 90 from the side."""
    height, width = density.shape[1:]
    for angle in angles_degree:
        turn = cv2.getRotationMatrix2D((width / 2, height / 2), angle, 1.0)
        depth = np.stack([cv2.warpAffine(item, turn, (width, height)).sum(axis=0) for item in density])
        depth *= pixel_mm
        body = np.flatnonzero(depth.max(axis=0) > _BODY_MM)
        for contrast in contrasts:
            image = 1 - np.exp(-contrast * depth * _WATER_PER_MM)
            image = image[:, body[0] : body[-1] + 1] if len(body) else image
            low, high = np.percentile(image, (1, 99))
            size = image.shape[1], round(image.shape[0] * slice_mm / pixel_mm)
            yield cv2.resize(np.clip((image - low) / max(high - low, 1e-6), 0, 1), size).astype(np.float32)


def _read_slice(path: Path) -> Dataset | None:
    try:
        item = dcmread(path)
    except InvalidDicomError:
        return None
    return item if item.get("Modality") == "CT" and "ImagePositionPatient" in item else None
