"""Unpacks RLE frames (PS3.5 annex G): one segment for each byte of a cell, the highest byte first."""

import imagecodecs
import numpy as np

from shared.errors import UndecodablePixelData
from shared.imaging.cells import CellLayout
from shared.imaging.rle_segments import read_segments


def unpack_rle(frame: bytes, layout: CellLayout) -> memoryview:
    """Return the little-endian cells of a frame.

    Raises `UndecodablePixelData` if the number of segments is not the number of bytes of a cell, or if the segments do
    not unpack to exactly one frame.
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
    """Unpack segments that are followed by more zeros than the one that makes their length even.

    Some writers leave these zeros in the file; they would unpack to zeros beyond the frame.
    """
    pixels = layout.height_px * layout.width_px
    cells = np.empty((pixels, len(segments)), np.uint8)
    for index, segment in enumerate(map(bytes, segments)):
        zeros = len(segment) - len(segment.rstrip(b"\0"))
        plane = imagecodecs.packbits_decode(segment, out=pixels + zeros // 2 + 1)  # two zeros unpack to one byte
        cells[:, len(segments) - 1 - index] = np.frombuffer(plane, np.uint8, pixels)
    return cells.tobytes()
