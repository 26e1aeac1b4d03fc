"""Removes all bits except those of stored values from native cells (PS3.5 section 8.1)."""

import numpy as np

from shared.imaging.cells import CellLayout, without_padding


def bare_cells(data: memoryview, layout: CellLayout) -> bytes:
    """Return the frame's little-endian cells with an even length, without data after them.

    Bits around the stored values become 0, or repeat the sign if a writer extended it. They then hold no other
    information. Raises `UndecodablePixelData` if the length does not match the image size.
    """
    frame = without_padding(data, layout.frame_bytes, layout.row_bytes)
    cells = np.frombuffer(frame, f"<u{layout.cell_bytes}")
    stored = stored_bits(layout)
    if not int(np.bitwise_or.reduce(cells)) & ~stored:
        return _even(bytes(frame))
    bare = cells & cells.dtype.type(stored)
    if layout.signed:
        above = (1 << layout.bits_allocated) - (1 << layout.high_bit + 1)
        is_negative = (cells >> layout.high_bit & 1).astype(bool)
        bare[is_negative] |= cells.dtype.type(above)
    return _even(bare.astype(cells.dtype, copy=False).tobytes())


def stored_bits(layout: CellLayout) -> int:
    """Return a mask of the bits that hold stored values."""
    return ((1 << layout.bits_stored) - 1) << layout.high_bit + 1 - layout.bits_stored


def _even(cells: bytes) -> bytes:
    return cells + b"\0" * (len(cells) % 2)
