"""How stored values lie in the cells of native pixel data, PS3.5 section 8.1."""

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
        """The bytes of a row."""
        return self.width_px * self.cell_bytes

    @property
    def most_bytes(self) -> int:
        """The most that a frame of such cells is inflated to, its padding included."""
        return 2 * self.frame_bytes + self.row_bytes


def read_layout(file: DicomFile, height_px: int, width_px: int) -> CellLayout:
    """The layout that a header describes; raises `UndecodablePixelData` where there can be none.

    A cell has 8 or 16 bits, the only ones that PS3.3 has for a radiograph (C.8.11.3.1.2): single bits and cells of 32
    are refused. Its 1 to 16 stored bits may lie anywhere in it. A missing BitsStored means all of them, a missing
    HighBit the lowest ones, as one does that leaves no room for them; a missing PixelRepresentation means unsigned.
    Raises `MalformedDicom` for an element that cannot be read.
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


def read_cells(data: memoryview, layout: CellLayout) -> Pixels:
    """The stored values [H, W] of little-endian cells, a view of them where nothing has to be cut off.

    Raises `UndecodablePixelData` for a length that does not fit the size.
    """
    data = without_padding(data, layout.frame_bytes, layout.row_bytes)
    cells = np.frombuffer(data, f"<u{layout.cell_bytes}")
    native = cells.astype(cells.dtype.newbyteorder("="), copy=False)
    return _extract(native.reshape(layout.height_px, layout.width_px), layout)


def without_padding(data: memoryview, frame_bytes: int, row_bytes: int) -> memoryview:
    """The cells of one frame, without the padding behind them (PS3.5 8.1.1); raises `UndecodablePixelData`.

    Writers pad to an even length or to a block. A spare row may as well mean that the header states a wrong size, so
    padding that is as long as a row has to be one byte, repeated.
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
