"""Unpack RLE frames, PS3.5 annex G: a segment for each byte of a cell, the highest byte first."""

import struct

import imagecodecs
import numpy as np

from shared.errors import UndecodablePixelData
from shared.imaging.cells import CellLayout

_HEADER = struct.Struct("<16I")  # how many segments, and where up to 15 of them begin


def unpack_rle(frame: bytes, layout: CellLayout) -> memoryview:
    """The little-endian cells of a frame.

    Raises `UndecodablePixelData` for another number of segments than a cell has bytes, and where they unpack to other
    than the frame.
    """
    if len(frame) < _HEADER.size:
        raise UndecodablePixelData
    count, *offsets = _HEADER.unpack_from(frame)
    if count != layout.cell_bytes:
        raise UndecodablePixelData
    try:
        cells = imagecodecs.dicomrle_decode(frame, f"<u{layout.cell_bytes}", out=layout.frame_bytes)
    except (RuntimeError, ValueError):
        cells = _unpack_padded(frame, offsets[:count], layout)
    if len(cells) != layout.frame_bytes:
        raise UndecodablePixelData
    return memoryview(cells)


def _unpack_padded(frame: bytes, offsets: list[int], layout: CellLayout) -> bytes:
    """Cells of segments with more zeros behind or between them than the one that makes their length even.

    Some writers leave them there; they would unpack to zeros beyond the frame.
    """
    ends = [*offsets[1:], len(frame)]
    if any(start < _HEADER.size or end < start for start, end in zip(offsets, ends, strict=True)):
        raise UndecodablePixelData
    pixels = layout.height_px * layout.width_px
    cells = np.empty((pixels, len(offsets)), np.uint8)
    for index, (start, end) in enumerate(zip(offsets, ends, strict=True)):
        segment = frame[start:end]
        zeros = len(segment) - len(segment.rstrip(b"\0"))
        plane = imagecodecs.packbits_decode(segment, out=pixels + zeros // 2 + 1)  # two of them make one byte
        cells[:, len(offsets) - 1 - index] = np.frombuffer(plane, np.uint8, pixels)
    return cells.tobytes()
