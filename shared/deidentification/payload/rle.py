"""Removes data after and between the segments of RLE frames (PS3.5 annex G)."""

import numpy as np
from numpy.typing import NDArray

from shared.deidentification.payload.cells import stored_bits
from shared.errors import UndecodablePixelData
from shared.imaging.cells import CellLayout
from shared.imaging.rle_segments import HEADER, NOTHING, RUN_BYTES, RUN_PIXELS, read_segments

_STARTS_RUN, _DROPPED = 1, 2


def bare_rle(frame: memoryview, layout: CellLayout) -> bytes:
    """Return a frame with one segment for each byte of a cell; each ends with its last pixel.

    Bits that hold no stored value become 0; in the byte with the sign, those above it repeat the sign. Raises
    `UndecodablePixelData`.
    """
    count = layout.cell_bytes
    segments = []
    position, positions = HEADER.size, []
    for index, found in enumerate(read_segments(frame, count)):
        shift = 8 * (count - 1 - index)  # the highest byte comes first
        segment = _bare_segment(bytes(found), layout, stored_bits(layout) >> shift & 0xFF, shift)
        segments.append(segment)
        positions.append(position)
        position += len(segment)
    return HEADER.pack(count, *positions, *[0] * (15 - count)) + b"".join(segments)


def _bare_segment(segment: bytes, layout: CellLayout, stored: int, shift: int) -> bytes:
    """Return a segment's runs up to the last pixel, without bytes outside runs and bits outside stored values."""
    pixels = layout.height_px * layout.width_px
    if stored == 0xFF and (end := _find_end(segment, pixels)) is not None:
        bare = segment[:end]
    else:
        bare = _mask_runs(segment, pixels, _masking(layout, stored, shift))
    return bare + b"\0" * (len(bare) % 2)


def _find_end(segment: bytes, pixels: int) -> int | None:
    """Return the end of the runs of `pixels` pixels; None if they do not match, or if a byte starts no run."""
    position = 0
    try:
        while pixels > 0:
            control = segment[position]
            if control == NOTHING:
                return None
            position += RUN_BYTES[control]
            pixels -= RUN_PIXELS[control]
    except IndexError:
        return None
    return position if pixels == 0 and position <= len(segment) else None


def _mask_runs(segment: bytes, pixels: int, table: NDArray[np.uint8]) -> bytes:
    """Return the runs of `pixels` pixels with their values mapped by `table`; raises `UndecodablePixelData`."""
    marks, position = bytearray(len(segment)), 0
    try:
        while pixels > 0:
            control = segment[position]
            if control == NOTHING:
                marks[position] = _DROPPED
                position += 1
            else:
                marks[position] = _STARTS_RUN
                position += RUN_BYTES[control]
                pixels -= RUN_PIXELS[control]
    except IndexError as exc:
        raise UndecodablePixelData from exc
    if pixels < 0 or position > len(segment):
        raise UndecodablePixelData
    values, kinds = np.frombuffer(segment, np.uint8, position), np.frombuffer(marks, np.uint8, position)
    masked = np.where(kinds == _STARTS_RUN, values, table[values])
    return bytes(masked[kinds != _DROPPED])


def _masking(layout: CellLayout, stored: int, shift: int) -> NDArray[np.uint8]:
    """Return a table of the new value of each byte value of a segment."""
    sign_bit, values = layout.high_bit - shift, np.arange(256, dtype=np.uint8)
    masked = values & np.uint8(stored)
    if layout.signed and 0 <= sign_bit < 7:
        masked[values >> sign_bit & 1 == 1] |= np.uint8(0xFF & ~((2 << sign_bit) - 1))
    return masked
