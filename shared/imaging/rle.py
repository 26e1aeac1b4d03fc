"""Unpack RLE frames, PS3.5 annex G: a segment for each byte of a cell, the highest byte first."""

import imagecodecs
import numpy as np

from shared.errors import UndecodablePixelData
from shared.imaging.cells import CellLayout
from shared.imaging.rle_segments import read_segments


def unpack_rle(frame: bytes, layout: CellLayout) -> memoryview:
    """The little-endian cells of a frame.

    Raises `UndecodablePixelData` for another number of segments than a cell has bytes, and where they unpack to other
    than the frame.
    """
    segments = read_segments(memoryview(frame), layout.cell_bytes)
    try:
        cells = imagecodecs.dicomrle_decode(frame, f"<u{layout.cell_bytes}", out=layout.frame_bytes)
    except (RuntimeError, ValueError):
        cells = _unpack_padded(segments, layout)
    if len(cells) != layout.frame_bytes:
        raise UndecodablePixelData
    return memoryview(cells)


def _unpack_padded(segments: list[memoryview], layout: CellLayout) -> bytes:
    """Cells of segments with more zeros behind or between them than the one that makes their length even.

    Some writers leave them there; they would unpack to zeros beyond the frame.
    """
    pixels = layout.height_px * layout.width_px
    cells = np.empty((pixels, len(segments)), np.uint8)
    for index, segment in enumerate(map(bytes, segments)):
        zeros = len(segment) - len(segment.rstrip(b"\0"))
        plane = imagecodecs.packbits_decode(segment, out=pixels + zeros // 2 + 1)  # two of them make one byte
        cells[:, len(segments) - 1 - index] = np.frombuffer(plane, np.uint8, pixels)
    return cells.tobytes()
