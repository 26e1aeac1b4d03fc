"""The pixel size that a header states (PS3.3 section 10.7), and the size of the rendition."""

import math
from dataclasses import dataclass

from shared.imaging.dicom_file import DicomFile
from shared.imaging.facts import PixelSpacing, SpacingSource

#: Limits of the pixel size of a radiograph, in mm. A value outside them is an error, or in another unit.
FINEST_MM, COARSEST_MM = 0.01, 5.0
#: Maximum ratio between the longer and the shorter side of a pixel.
MAX_ASPECT = 4.0
#: Two lengths count as equal if their ratio differs from 1 by at most this: headers round values, and magnification
#: changes them by several percent.
SAME = 0.005

Pair = tuple[float, float]


@dataclass(frozen=True)
class Geometry:
    """The size and shape of pixels according to a header."""

    #: None if the header states no plausible spacing.
    spacing: PixelSpacing | None = None
    #: A pixel's height divided by its width; exactly 1 if they are the `SAME`.
    aspect: float = 1.0


def read_geometry(file: DicomFile) -> Geometry:
    """Read the size and shape of pixels. An element that is not two plausible numbers counts as absent.

    PixelSpacing has priority, then ImagerPixelSpacing, then NominalScannedPixelSpacing. Without these, PixelAspectRatio
    gives the shape (PS3.3 C.7.6.3.1.7). EstimatedRadiographicMagnificationFactor is ignored: it applies to one assumed
    depth, and a device that corrects for it writes the result into PixelSpacing.
    """
    spacing = _read_spacing(file)
    if spacing is not None:
        return Geometry(spacing, _aspect(spacing.row_mm, spacing.column_mm))
    ratio = _read_pair(file, "PixelAspectRatio")
    return Geometry(aspect=_aspect(*ratio) if ratio else 1.0)


def rendition_size(height_px: int, width_px: int, longest_px: int, aspect: float = 1.0) -> tuple[int, int]:
    """Return the height and width of the rendition, in square pixels, given pixels `aspect` times as high as wide.

    The finer axis is reduced to the sampling of the coarser one. Then both are reduced until the longer side is
    `longest_px`. Neither is enlarged. The sides are rounded separately, so the two scales differ slightly.
    """
    height, width = height_px * min(aspect, 1.0), width_px / max(aspect, 1.0)
    ratio = min(1.0, longest_px / max(height, width))
    return max(1, round(height * ratio)), max(1, round(width * ratio))


def _read_spacing(file: DicomFile) -> PixelSpacing | None:
    pixel, imager = _read_spacing_pair(file, "PixelSpacing"), _read_spacing_pair(file, "ImagerPixelSpacing")
    scanned = _read_spacing_pair(file, "NominalScannedPixelSpacing")
    if pixel is not None:
        return _describe(pixel, _source(file, pixel, imager, scanned))
    if imager is not None:
        return _describe(imager, SpacingSource.DETECTOR)
    return None if scanned is None else _describe(scanned, SpacingSource.FILM)


def _source(file: DicomFile, pixel: Pair, imager: Pair | None, scanned: Pair | None) -> SpacingSource:
    """Return where PixelSpacing was measured (PS3.3 10.7.1.1); it is calibrated if it differs from the receptor's."""
    if file.text("PixelSpacingCalibrationType") in ("GEOMETRY", "FIDUCIAL"):
        return SpacingSource.CALIBRATED
    receptor, source = (scanned, SpacingSource.FILM) if imager is None else (imager, SpacingSource.DETECTOR)
    if receptor is None:
        return SpacingSource.UNSPECIFIED
    ratios = [mine / its for mine, its in zip(pixel, receptor, strict=True)]
    if all(abs(ratio - 1) <= SAME for ratio in ratios):
        return source
    # A shadow is larger than its object, so a correction cannot increase the spacing. More likely, the image was
    # reduced and only one of the two elements was updated.
    return SpacingSource.CALIBRATED if max(ratios) <= 1 + SAME else SpacingSource.UNSPECIFIED


def _describe(pair: Pair, source: SpacingSource) -> PixelSpacing:
    row_mm, column_mm = pair
    return PixelSpacing(row_mm=row_mm, column_mm=column_mm, source=source)


def _aspect(height: float, width: float) -> float:
    return 1.0 if abs(height / width - 1) <= SAME else height / width


def _read_spacing_pair(file: DicomFile, keyword: str) -> Pair | None:
    """Read row and column spacing in mm (PS3.3 section 10.7.1.3)."""
    pair = _read_pair(file, keyword)
    return pair if pair and all(FINEST_MM <= length <= COARSEST_MM for length in pair) else None


def _read_pair(file: DicomFile, keyword: str) -> Pair | None:
    """Read two positive numbers, vertical first, whose ratio is at most `MAX_ASPECT`."""
    numbers = [math.nan if number is None else number for number in file.numbers(keyword)]
    if len(numbers) != 2 or not all(math.isfinite(number) and number > 0 for number in numbers):
        return None
    vertical, horizontal = numbers
    return (vertical, horizontal) if 1 / MAX_ASPECT <= vertical / horizontal <= MAX_ASPECT else None
