"""How stored values lie in the cells of native pixel data, PS3.5 section 8.1."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shared.errors import UndecodablePixelData
from shared.imaging.dicom_file import DicomFile
from shared.imaging.grey_levels import Pixels


@dataclass(frozen=True)
class CellLayout:
    """Cells of one size, and which of their bits are the stored value."""

    height_px: int
    width_px: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool

    @property
    def cell_bytes(self) -> int:
        """The bytes of one cell."""
        return self.bits_allocated // 8

    @property
    def frame_bytes(self) -> int:
        """The bytes of all cells."""
        return self.height_px * self.width_px * self.cell_bytes

    @property
    def row_bytes(self) -> int:
        """The bytes of a row. Writers pad to an even length and beyond; a whole spare row means a wrong size."""
        return self.width_px * self.cell_bytes


def read_layout(file: DicomFile, height_px: int, width_px: int) -> CellLayout:
    """The layout that a header describes; raises `UndecodablePixelData` where there can be none.

    A cell has 8 or 16 bits, the only ones that PS3.3 has for a radiograph (C.8.11.3.1.2): single bits and cells of 32
    are refused. Its 1 to 16 stored bits may lie anywhere in it. A missing BitsStored means all of them, a missing
    HighBit the lowest ones, a missing PixelRepresentation unsigned.
    """
    allocated = file.integer("BitsAllocated") or 0
    stored, high_bit = file.integer("BitsStored"), file.integer("HighBit")
    stored = allocated if stored is None else stored
    high_bit = stored - 1 if high_bit is None else high_bit
    if allocated not in (8, 16) or not stored - 1 <= high_bit < allocated or stored < 1:
        raise UndecodablePixelData
    return CellLayout(height_px, width_px, allocated, stored, high_bit, file.integer("PixelRepresentation") == 1)


def read_cells(data: memoryview, layout: CellLayout) -> Pixels:
    """The stored values [H, W] of little-endian cells, a view of them where nothing has to be cut off.

    Raises `UndecodablePixelData` for a length that does not fit the size.
    """
    if not 0 <= len(data) - layout.frame_bytes < layout.row_bytes:
        raise UndecodablePixelData
    cells = np.frombuffer(data, f"<u{layout.cell_bytes}", layout.height_px * layout.width_px)
    native = cells.astype(cells.dtype.newbyteorder("="), copy=False)
    return _extract(native.reshape(layout.height_px, layout.width_px), layout)


def sign_extend(cells: Pixels, bits: int) -> NDArray[np.int16]:
    """Read the low `bits` of each cell as two's complement."""
    values = cells.view(np.int16) if cells.itemsize == 2 else cells.astype(np.int16)
    if bits == 16 or (cells.itemsize == 2 and -(1 << bits - 1) <= values.min() <= values.max() < 1 << bits - 1):
        return values  # extended already, as most writers do
    values = values << 16 - bits
    return np.right_shift(values, 16 - bits, out=values)


def _extract(cells: Pixels, layout: CellLayout) -> Pixels:
    """Cut the stored values out of unsigned cells; overlays may live in the bits around them."""
    spare_low_bits = layout.high_bit + 1 - layout.bits_stored
    if spare_low_bits:
        cells = cells >> spare_low_bits
    if layout.signed:
        return sign_extend(cells, layout.bits_stored)
    # Looking whether there is anything to cut off costs a fraction of cutting it off.
    return cells & ((1 << layout.bits_stored) - 1) if cells.max() >> layout.bits_stored else cells
