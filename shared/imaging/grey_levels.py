"""DICOM's grey-level chain: modality, window, inversion, 8 bits (PS3.3 C.7.5.1.1.2, C.7.6.3, C.11.1 and C.11.2).

Each step maps one stored integer to one value. Therefore the chain is computed once for each possible value of the
pixel type, and applied as one table. `docs/imaging.md` states each rule with its section.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from shared.errors import MalformedDicom
from shared.imaging.dicom_file import DicomFile, quietly
from shared.imaging.element_names import name_of
from shared.imaging.kind import is_signed, read_photometric
from shared.imaging.lookup_tables import Table, read_table
from shared.imaging.windows import MAX_VALUE, Floats, Window, WindowShape

Pixels = NDArray[np.integer[Any]]  # uint8, uint16 or int16

#: An image of more than 8 bits without a window is stretched between these percentiles, which exclude markers and
#: borders.
PERCENTILES = (0.5, 99.5)


@dataclass(frozen=True)
class Rescale:
    """The modality transformation as a linear function."""

    slope: float = 1.0
    intercept: float = 0.0

    @property
    def is_valid(self) -> bool:
        """Whether different values stay different, and finite."""
        return 0 < abs(self.slope) <= MAX_VALUE and abs(self.intercept) <= MAX_VALUE

    def apply(self, values: Floats) -> Floats:
        """Convert stored values to modality values."""
        return values * self.slope + self.intercept


@dataclass(frozen=True)
class Shown:
    """The rendered pixels, and the applied steps in words."""

    pixels: NDArray[np.uint8]  # [H, W], 0 is black
    chain: list[str]


@dataclass(frozen=True)
class GreyLevels:
    """The steps from stored values to brightness."""

    modality: Rescale | Table = Rescale()
    #: None: stretch between `PERCENTILES` of the image.
    voi: Window | Table | None = None
    #: The name of the header's window or table in `voi`.
    voi_name: str = "full range"
    #: The element that makes low values bright; empty if there is none.
    inverted_by: str = ""
    #: The first and the last stored value of padding, which is outside the image content.
    padding: tuple[int, int] | None = None
    #: Further remarks for the reader about the values.
    remarks: tuple[str, ...] = ()

    def render(self, pixels: Pixels, padded: NDArray[np.bool_] | None = None) -> Shown:
        """Render stored values [H, W]. Pixels that are `padded` [H, W] become black and are ignored in statistics.

        A window that makes all pixels equal counts as absent. An image with a single value is black.
        """
        codes: Pixels = pixels.view(np.uint8 if pixels.itemsize == 1 else np.uint16)
        every_code = np.arange(1 << 8 * pixels.itemsize, dtype=codes.dtype)
        values = self.modality.apply(every_code.view(pixels.dtype).astype(np.float64))  # of each code
        counts = np.bincount((codes if padded is None else codes[~padded]).ravel(), minlength=len(values))
        levels, voi_words = self._choose_levels(values, counts)
        shown = np.take(levels, codes)
        if padded is not None:
            shown[padded] = 0
        return Shown(shown, [*self.remarks, *self._modality_words(), *voi_words, *self._last_words(padded is not None)])

    def _choose_levels(self, values: Floats, counts: NDArray[np.int64]) -> tuple[NDArray[np.uint8], list[str]]:
        """Return the level of each code, uint8 [codes], and the steps in words; `counts` has each code's frequency."""
        words, occurs = [], counts > 0
        if self.voi is not None:
            levels = self._levels(self.voi, values)
            if _differ(levels[occurs]):
                return levels, [f"{self.voi_name}: {self.voi}"]
            words.append(f"{self.voi_name}: {self.voi}, shows nothing, left out")
        if not _differ(values[occurs]):
            return np.zeros(len(values), np.uint8), [*words, "one value: black"]
        low, high = percentiles(values[occurs], counts[occurs], PERCENTILES)
        name = f"percentiles {PERCENTILES[0]:g} to {PERCENTILES[1]:g}"
        if low == high:
            low, high, name = float(values[occurs].min()), float(values[occurs].max()), "lowest to highest"
        window = Window((low + high) / 2, high - low, WindowShape.LINEAR_EXACT)
        return self._levels(window, values), [*words, f"{name}: {low:.10g}, {high:.10g}"]

    def _levels(self, voi: Window | Table, values: Floats) -> NDArray[np.uint8]:
        brightness = voi.brightness(values) if isinstance(voi, Table) else voi.apply(values)
        levels = np.rint(255 * brightness).astype(np.uint8)
        return 255 - levels if self.inverted_by else levels

    def _modality_words(self) -> list[str]:
        if isinstance(self.modality, Table):
            return [f"modality LUT: {self.modality}"]
        if self.modality == Rescale():
            return []
        return [f"rescale: slope {self.modality.slope:.10g}, intercept {self.modality.intercept:.10g}"]

    def _last_words(self, is_padded: bool) -> list[str]:
        words = [f"inverted: {self.inverted_by}"] if self.inverted_by else []
        if is_padded and self.padding is not None:
            words.append(f"padding: {self.padding[0]} to {self.padding[1]}")
        return words


def _differ(values: NDArray[np.generic]) -> bool:
    return bool((values != values[:1]).any())


def percentiles(values: Floats, counts: NDArray[np.int64], ranks: tuple[float, float]) -> tuple[float, float]:
    """Return the `np.percentile` of pixels from the values [N] and their counts [N]: 20 times as fast."""
    order = np.argsort(values, kind="stable")
    cumulative = np.cumsum(counts[order])
    position = np.array(ranks) / 100 * (cumulative[-1] - 1)  # a fractional index into the sorted pixels
    below, above = (
        values[order[np.searchsorted(cumulative, index, side="right")]]
        for index in (np.floor(position), np.ceil(position))
    )
    low, high = below + (above - below) * (position - np.floor(position))
    return float(low), float(high)


def full_range(bits: int) -> Window:
    """Return the window that shows `bits`-bit values unchanged: the lowest is black, the highest white."""
    return Window(2.0 ** (bits - 1), 2.0**bits)


def read_grey_levels(file: DicomFile) -> GreyLevels:
    """Return the chain that a DICOM header describes.

    The first VOI LUT is used, otherwise the first valid window. Forbidden values (a width below 1, a slope of 0,
    numbers that are not finite) count as absent, and so do unreadable elements, except tables. Without a VOI LUT and
    window, values of at most 8 bits are shown unchanged. Raises `MalformedDicom`.
    """
    bits, signed = file.integer("BitsStored", required=True) or 16, is_signed(file)
    modality = _read_modality(file, bits, signed)
    voi, name = _read_voi(file, *_output_range(modality, bits, signed))
    if voi is None and bits <= 8 and not signed and modality == Rescale():
        voi, name = full_range(bits), "full range"
    return GreyLevels(modality, voi, name, _read_inversion(file), _read_padding(file, signed), _read_remarks(file))


def _output_range(modality: Rescale | Table, bits: int, signed: bool) -> tuple[float, float]:
    """Return the lowest and the highest possible modality value."""
    if isinstance(modality, Table):
        return 0.0, 2.0**modality.bits - 1
    lowest = -(2.0 ** (bits - 1)) if signed else 0.0
    ends = modality.apply(np.array([lowest, lowest + 2.0**bits - 1]))
    return float(ends.min()), float(ends.max())


def _read_modality(file: DicomFile, bits: int, signed: bool) -> Rescale | Table:
    items = _items(file, "ModalityLUTSequence")
    if items:
        with _named("ModalityLUTSequence"):
            return read_table(items[0], highest=2.0**bits - 1, signed=signed, little_endian=file.little_endian)
    slope, intercept = file.number("RescaleSlope"), file.number("RescaleIntercept")
    rescale = Rescale(1.0 if slope is None else slope, intercept or 0.0)
    return rescale if rescale.is_valid else Rescale()


def _read_voi(file: DicomFile, lowest: float, highest: float) -> tuple[Window | Table | None, str]:
    """Return the table or window for values from `lowest` to `highest`, and its name."""
    windows = _read_windows(file)
    window = next((number for number, window in enumerate(windows) if window.is_valid), None)
    items = _items(file, "VOILUTSequence")
    if items:
        try:
            with _named("VOILUTSequence"):
                table = read_table(items[0], highest=highest, signed=lowest < 0, little_endian=file.little_endian)
        except MalformedDicom:
            if window is None:
                raise
        else:
            return table, f"VOI LUT 1 of {len(items)}"
    if window is None:
        return None, ""
    return windows[window], f"window {window + 1} of {len(windows)}"


def _read_windows(file: DicomFile) -> list[Window]:
    name = file.text("VOILUTFunction")
    shape = WindowShape(name) if name in {shape.value for shape in WindowShape} else WindowShape.LINEAR
    # An unreadable number becomes NaN: its window is invalid, and the other windows keep their numbers.
    centers, widths = (
        [math.nan if number is None else number for number in file.numbers(keyword)]
        for keyword in ("WindowCenter", "WindowWidth")
    )
    return [Window(center, width, shape) for center, width in zip(centers, widths, strict=False)]


def _read_inversion(file: DicomFile) -> str:
    """Return the element that makes low values bright; either of the two is enough, because they belong together."""
    shape = file.text("PresentationLUTShape")
    if read_photometric(file) == "MONOCHROME1":
        return "MONOCHROME1, against a presentation LUT shape of IDENTITY" if shape == "IDENTITY" else "MONOCHROME1"
    return "presentation LUT shape INVERSE, against MONOCHROME2" if shape == "INVERSE" else ""


def _read_padding(file: DicomFile, signed: bool) -> tuple[int, int] | None:
    """Return the range of padding in stored values, whatever VR its limits have."""
    value, limit = file.integer("PixelPaddingValue"), file.integer("PixelPaddingRangeLimit")
    if value is None:
        return None
    ends = [end & 0xFFFF for end in (value, value if limit is None else limit)]
    ends = [end - 65536 if signed and end >= 32768 else end for end in ends]
    return min(ends), max(ends)


def _read_remarks(file: DicomFile) -> tuple[str, ...]:
    if file.text("PresentationIntentType") != "FOR PROCESSING":
        return ()
    relationship = file.text("PixelIntensityRelationship")
    known = relationship if relationship in ("LIN", "LOG") else "unknown"
    return (f"for processing: shown unprocessed, pixel intensity {known}",)


def _items(file: DicomFile, keyword: str) -> list[Dataset]:
    with _named(keyword), quietly(MalformedDicom):
        return list(file.dataset.get(keyword) or [])


@contextmanager
def _named(keyword: str) -> Iterator[None]:
    """Add the name of the table to the error if it cannot be read."""
    try:
        yield
    except MalformedDicom as exc:
        raise MalformedDicom(f"{name_of(keyword)} cannot be read.") from exc
