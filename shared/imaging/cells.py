"""The layout of stored values in the cells of native pixel data (PS3.5 section 8.1)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shared.errors import UndecodablePixelData
from shared.imaging.dicom_file import DicomFile
from shared.imaging.element_names import name_of
from shared.imaging.grey_levels import Pixels
from shared.imaging.kind import is_signed
from shared.imaging.transfer_syntaxes import IN_CELLS, PACKINGS


@dataclass(frozen=True)
class CellLayout:
    """The size of a frame's cells, and the bits of a cell that hold the stored value."""

    height_px: int
    width_px: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool

    @property
    def cell_bytes(self) -> int:
        """The size of one cell."""
        return self.bits_allocated // 8

    @property
    def frame_bytes(self) -> int:
        """The size of all cells."""
        return self.height_px * self.width_px * self.cell_bytes

    @property
    def row_bytes(self) -> int:
        """The size of one row."""
        return self.width_px * self.cell_bytes

    @property
    def max_bytes(self) -> int:
        """The maximum size of an inflated frame, padding included."""
        return 2 * self.frame_bytes + self.row_bytes


def read_layout(file: DicomFile, height_px: int, width_px: int) -> CellLayout:
    """Return the layout that a header describes.

    A cell has 8 or 16 bits, the only sizes that PS3.3 C.8.11.3.1.2 defines for a radiograph; cells of 1 or 32 bits are
    rejected. The 1 to 16 stored bits can be anywhere in the cell. If BitsStored is missing, all bits are stored bits.
    If HighBit is missing or too low for BitsStored, the lowest bits are. If PixelRepresentation is missing, values are
    unsigned.

    Raises `UndecodablePixelData` for an invalid layout, and `MalformedDicom` for an unreadable element.
    """
    allocated = file.integer("BitsAllocated", required=True)
    stored, high_bit = file.integer("BitsStored", required=True), file.integer("HighBit", required=True)
    if allocated not in (8, 16):
        said = "is missing" if allocated is None else "is neither 8 nor 16"
        raise UndecodablePixelData(f"{name_of('BitsAllocated')} {said}.")
    stored = allocated if stored is None else stored
    if not 1 <= stored <= allocated:
        raise UndecodablePixelData(f"{name_of('BitsStored')} is not between 1 and BitsAllocated.")
    high_bit = stored - 1 if high_bit is None else high_bit
    if high_bit >= allocated:
        raise UndecodablePixelData(f"{name_of('HighBit')} is not below BitsAllocated.")
    if high_bit < stored - 1:
        high_bit = stored - 1
        if PACKINGS.get(file.transfer_syntax_uid) in IN_CELLS:
            file.remarks.mend(f"{name_of('HighBit')} is below BitsStored - 1, read as {high_bit}")
    return CellLayout(height_px, width_px, allocated, stored, high_bit, is_signed(file))


def read_frame_layout(file: DicomFile) -> CellLayout:
    """Return the layout of a whole frame from its header; raises the errors of `read_layout`."""
    return read_layout(file, file.integer("Rows") or 0, file.integer("Columns") or 0)


def read_cells(data: memoryview, layout: CellLayout) -> Pixels:
    """Return the stored values [H, W] of little-endian cells: a view if no bits must be removed.

    Raises `UndecodablePixelData` if the length does not match the image size.
    """
    data = without_padding(data, layout.frame_bytes, layout.row_bytes)
    cells = np.frombuffer(data, f"<u{layout.cell_bytes}")
    native = cells.astype(cells.dtype.newbyteorder("="), copy=False)
    return _extract(native.reshape(layout.height_px, layout.width_px), layout)


def without_padding(data: memoryview, frame_bytes: int, row_bytes: int) -> memoryview:
    """Return the cells of one frame without the padding after them (PS3.5 8.1.1).

    Writers pad to an even length or to a block. An extra row can also mean that the header states a wrong size. Padding
    of at least one row must therefore repeat a single byte. Raises `UndecodablePixelData`.
    """
    if len(data) < frame_bytes:
        raise UndecodablePixelData(f"{name_of('PixelData')} is shorter than its rows and columns.")
    spare = data[frame_bytes:]
    if len(spare) >= row_bytes and spare[1:] != spare[:-1]:
        raise UndecodablePixelData(f"{name_of('PixelData')} is longer than its rows and columns.")
    return data[:frame_bytes]


def sign_extend(cells: Pixels, bits: int) -> NDArray[np.int16]:
    """Read the low `bits` of each cell as two's complement."""
    values = cells.view(np.int16) if cells.itemsize == 2 else cells.astype(np.int16)
    if bits == 16 or (cells.itemsize == 2 and -(1 << bits - 1) <= values.min() <= values.max() < 1 << bits - 1):
        return values  # already extended, as by most writers
    values = values << 16 - bits
    return np.right_shift(values, 16 - bits, out=values)


def _extract(cells: Pixels, layout: CellLayout) -> Pixels:
    """Extract the stored values from unsigned cells; the bits around them may hold overlays."""
    spare_low_bits = layout.high_bit + 1 - layout.bits_stored
    if spare_low_bits:
        cells = cells >> spare_low_bits
    if layout.signed:
        return sign_extend(cells, layout.bits_stored)
    # Checking for extra bits costs a fraction of removing them.
    return cells & ((1 << layout.bits_stored) - 1) if cells.max() >> layout.bits_stored else cells
