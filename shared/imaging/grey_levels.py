"""DICOM's grey-level chain (PS3.3 C.7.6.3, C.11.1 and C.11.2): modality, window, inversion; then 8 bits.

Every step maps one stored integer to one value, so the whole chain is computed once for each value that the pixels'
type can hold, and applied as one table.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from shared.errors import MalformedDicom
from shared.imaging.dicom_file import DicomFile, quietly

Floats = NDArray[np.float64]
Pixels = NDArray[np.integer[Any]]  # uint8, uint16 or int16

#: Without a window of its own, a deep image is stretched between these; markers and borders lie outside.
PERCENTILES = (0.5, 99.5)


class WindowShape(Enum):
    """VOI LUT Function, PS3.3 C.11.2.1.2."""

    LINEAR = "LINEAR"
    LINEAR_EXACT = "LINEAR_EXACT"
    SIGMOID = "SIGMOID"


@dataclass(frozen=True)
class Window:
    """Maps values to brightness 0–1."""

    center: float
    width: float
    shape: WindowShape = WindowShape.LINEAR

    @property
    def is_valid(self) -> bool:
        """Whether the standard allows it: LINEAR needs a width of at least 1, the others a positive one."""
        least = 1 if self.shape is WindowShape.LINEAR else np.finfo(np.float32).tiny
        return bool(np.isfinite([self.center, self.width]).all() and self.width >= least)

    def apply(self, values: Floats) -> Floats:
        """Brightness of `values`, in 0–1."""
        if self.shape is WindowShape.SIGMOID:
            exponent = np.clip(-4 * (values - self.center) / self.width, -700, 700)  # exp() stays finite
            return np.asarray(1 / (1 + np.exp(exponent)))
        if self.shape is WindowShape.LINEAR_EXACT:
            return np.asarray(np.clip((values - self.center) / self.width + 0.5, 0, 1))
        # At a width of 1 the standard's formula is a step at center - 0.5.
        return np.asarray(np.clip((values - (self.center - 0.5)) / max(self.width - 1, 1e-9) + 0.5, 0, 1))


@dataclass(frozen=True)
class Rescale:
    """The modality transformation as a straight line."""

    slope: float = 1.0
    intercept: float = 0.0

    def apply(self, values: Floats) -> Floats:
        """Modality values of stored values."""
        return values * self.slope + self.intercept


@dataclass(frozen=True)
class Table:
    """A modality or VOI LUT: values below its first and above its last entry take these."""

    first: int
    entries: Floats  # [n]

    def apply(self, values: Floats) -> Floats:
        """The entries that `values` point at."""
        index = np.clip(np.rint(values) - self.first, 0, len(self.entries) - 1).astype(np.int64)
        entries: Floats = np.take(self.entries, index)
        return entries


@dataclass(frozen=True)
class GreyLevels:
    """How stored values become brightness."""

    modality: Rescale | Table = Rescale()
    #: None: stretch between `PERCENTILES` of the image. A table's entries lie in 0–1.
    voi: Window | Table | None = None
    #: Low values are bright (MONOCHROME1, or a presentation LUT of INVERSE).
    inverted: bool = False
    #: Stored values from the first to the last of these lie outside the picture.
    padding: tuple[int, int] | None = None

    def render(self, pixels: Pixels) -> NDArray[np.uint8]:
        """Stored values [H, W] to uint8 [H, W], 0 is black.

        A window that shows nothing of an image with contrast counts as absent. An image of one value is black.
        """
        if self.voi is not None:
            shown = self._look_up(pixels, self.voi)
            if shown.min() != shown.max():
                return shown
        stretch = self._percentile_window(pixels)
        return self._look_up(pixels, stretch) if stretch else np.zeros(pixels.shape, np.uint8)

    def _look_up(self, pixels: Pixels, voi: Window | Table) -> NDArray[np.uint8]:
        codes: Pixels = pixels.view(np.uint8 if pixels.itemsize == 1 else np.uint16)
        every_value = np.arange(1 << 8 * pixels.itemsize, dtype=codes.dtype).view(pixels.dtype).astype(np.float64)
        table = np.rint(255 * voi.apply(self.modality.apply(every_value))).astype(np.uint8)
        return np.take(255 - table if self.inverted else table, codes)

    def _percentile_window(self, pixels: Pixels) -> Window | None:
        inside = pixels.ravel()
        if self.padding is not None:
            inside = inside[(inside < self.padding[0]) | (inside > self.padding[1])]
        if inside.size == 0:
            return None
        values = self.modality.apply(inside.astype(np.float64))
        low, high = np.percentile(values, PERCENTILES)
        if low == high:
            low, high = values.min(), values.max()
        window = Window(float(low + high) / 2, float(high - low), WindowShape.LINEAR_EXACT)
        return window if window.is_valid else None


def full_range(bits: int) -> Window:
    """The window that shows `bits`-bit values as they are, the lowest black and the highest white."""
    return Window(2.0 ** (bits - 1), 2.0**bits)


def read_grey_levels(file: DicomFile) -> GreyLevels:
    """The chain that a DICOM header describes.

    The first window is taken, else the VOI LUT. What the standard forbids (a width below 1, a slope of 0, numbers
    that are not finite) counts as absent. Values of at most 8 bits with neither are shown as they are. Raises
    `MalformedDicom`.
    """
    modality = _read_modality(file)
    voi = _read_voi(file)
    bits, signed = file.integer("BitsStored") or 16, file.integer("PixelRepresentation") == 1
    if voi is None and bits <= 8 and not signed and modality == Rescale():
        voi = full_range(bits)
    inverted = file.text("PhotometricInterpretation") == "MONOCHROME1" or file.text("PresentationLUTShape") == "INVERSE"
    first = file.integer("PixelPaddingValue")
    last = file.integer("PixelPaddingRangeLimit")
    padding = None if first is None else (min(first, last or first), max(first, last or first))
    return GreyLevels(modality, voi, inverted, padding)


def _read_modality(file: DicomFile) -> Rescale | Table:
    item = _first_item(file, "ModalityLUTSequence")
    if item is not None:
        return _read_table(item, file)[0]
    slope, intercept = file.number("RescaleSlope"), file.number("RescaleIntercept")
    rescale = Rescale(1.0 if slope is None else slope, intercept or 0.0)
    usable = np.isfinite([rescale.slope, rescale.intercept]).all() and rescale.slope != 0
    return rescale if usable else Rescale()


def _read_voi(file: DicomFile) -> Window | Table | None:
    center, width = file.number("WindowCenter"), file.number("WindowWidth")
    if center is not None and width is not None:
        name = file.text("VOILUTFunction")
        shape = WindowShape(name) if name in {shape.value for shape in WindowShape} else WindowShape.LINEAR
        window = Window(center, width, shape)
        if window.is_valid:
            return window
    item = _first_item(file, "VOILUTSequence")
    if item is None:
        return None
    table, bits = _read_table(item, file)
    return Table(table.first, table.entries / max(2.0**bits - 1, table.entries.max()))


def _first_item(file: DicomFile, keyword: str) -> Dataset | None:
    with quietly(MalformedDicom):
        sequence = file.dataset.get(keyword)
        return sequence[0] if sequence else None


def _read_table(item: Dataset, file: DicomFile) -> tuple[Table, int]:
    """A LUT and the bits of its entries, PS3.3 C.11.1.1."""
    with quietly(MalformedDicom):
        count, first, bits = (int(number) for number in item.LUTDescriptor)
        count = count or 65536  # 2**16 does not fit in the descriptor's 16 bits
        if file.integer("PixelRepresentation") == 1 and first >= 32768:
            first -= 65536  # read as unsigned, though the pixels are signed
        entries = _read_entries(item.LUTData, count, file.little_endian)
        if len(entries) < count or not 1 <= bits <= 16:
            raise MalformedDicom
        return Table(first, entries[:count]), bits


def _read_entries(data: Any, count: int, little_endian: bool) -> Floats:
    if not isinstance(data, bytes):
        return np.atleast_1d(np.asarray(data, np.float64))
    wide = len(data) > count + 1  # 8-bit entries are packed, and padded to an even length
    return np.frombuffer(data, ("<u2" if little_endian else ">u2") if wide else np.uint8).astype(np.float64)
