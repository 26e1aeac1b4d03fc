"""How large a pixel is, as a header says (PS3.3 section 10.7), and how large a rendition's picture of it becomes."""

import math
from dataclasses import dataclass

from shared.imaging.dicom_file import DicomFile
from shared.imaging.facts import PixelSpacing, SpacingSource

#: No radiograph has finer or coarser pixels, in mm; what says so was written in another unit, or not at all.
FINEST_MM, COARSEST_MM = 0.01, 5.0
#: A pixel is at most this many times as long as it is wide, or as wide as it is long.
LONGEST_ASPECT = 4.0
#: Closer to each other than this two lengths count as the same: headers round, and magnification takes percents.
SAME = 0.005

Pair = tuple[float, float]


@dataclass(frozen=True)
class Geometry:
    """What a header says of its pixels' size and shape."""

    #: None where it says nothing that can be believed.
    spacing: PixelSpacing | None = None
    #: A pixel's height by its width; 1 where they are the `SAME`.
    aspect: float = 1.0


def read_geometry(file: DicomFile) -> Geometry:
    """Read the pixels' size and shape; whatever is not two plausible numbers counts as absent.

    PixelSpacing goes first, then ImagerPixelSpacing, then NominalScannedPixelSpacing; where there is none of them
    PixelAspectRatio tells the shape (PS3.3 C.7.6.3.1.7). EstimatedRadiographicMagnificationFactor is left alone: it
    holds for one assumed depth, and a device that vouches for a correction writes its result into PixelSpacing.
    """
    spacing = _read_spacing(file)
    if spacing is not None:
        return Geometry(spacing, _aspect(spacing.row_mm, spacing.column_mm))
    ratio = _read_pair(file, "PixelAspectRatio")
    return Geometry(aspect=_aspect(*ratio) if ratio else 1.0)


def rendition_size(height_px: int, width_px: int, longest_px: int, aspect: float = 1.0) -> tuple[int, int]:
    """Height and width, in square pixels, of a picture whose pixels are `aspect` times as high as wide.

    The finer axis is reduced to the coarser one's sampling, then both until the longer is `longest_px`: neither is ever
    enlarged. Each is rounded by itself, so that the two scales differ by what rounding takes.
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
    """Where a PixelSpacing was measured, PS3.3 section 10.7.1.1: what differs from the receptor's is corrected."""
    if file.text("PixelSpacingCalibrationType") in ("GEOMETRY", "FIDUCIAL"):
        return SpacingSource.CALIBRATED
    receptor, source = (scanned, SpacingSource.FILM) if imager is None else (imager, SpacingSource.DETECTOR)
    if receptor is None:
        return SpacingSource.UNSPECIFIED
    ratios = [mine / its for mine, its in zip(pixel, receptor, strict=True)]
    if all(abs(ratio - 1) <= SAME for ratio in ratios):
        return source
    # A shadow is larger than what casts it. What claims the opposite is no correction: more likely the picture was
    # made smaller, and only one of the two was kept up.
    return SpacingSource.CALIBRATED if max(ratios) <= 1 + SAME else SpacingSource.UNSPECIFIED


def _describe(pair: Pair, source: SpacingSource) -> PixelSpacing:
    row_mm, column_mm = pair
    return PixelSpacing(row_mm=row_mm, column_mm=column_mm, source=source)


def _aspect(height: float, width: float) -> float:
    return 1.0 if abs(height / width - 1) <= SAME else height / width


def _read_spacing_pair(file: DicomFile, keyword: str) -> Pair | None:
    """Row and column spacing, PS3.3 section 10.7.1.3, in mm."""
    pair = _read_pair(file, keyword)
    return pair if pair and all(FINEST_MM <= length <= COARSEST_MM for length in pair) else None


def _read_pair(file: DicomFile, keyword: str) -> Pair | None:
    """Two positive numbers, the vertical one first, of which neither is `LONGEST_ASPECT` times the other."""
    numbers = [math.nan if number is None else number for number in file.numbers(keyword)]
    if len(numbers) != 2 or not all(math.isfinite(number) and number > 0 for number in numbers):
        return None
    vertical, horizontal = numbers
    return (vertical, horizontal) if 1 / LONGEST_ASPECT <= vertical / horizontal <= LONGEST_ASPECT else None
