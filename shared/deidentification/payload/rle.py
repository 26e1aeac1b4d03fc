"""RLE frames without what follows or lies between their segments (PS3.5 annex G)."""

import numpy as np
from numpy.typing import NDArray

from shared.deidentification.payload.cells import stored_bits
from shared.errors import UndecodablePixelData
from shared.imaging.cells import CellLayout
from shared.imaging.rle_segments import HEADER, NOTHING, RUN_BYTES, RUN_PIXELS, read_segments

_STARTS_RUN, _DROPPED = 1, 2


def bare_rle(frame: memoryview, layout: CellLayout) -> bytes:
    """A frame of as many segments as a cell has bytes, each as long as its pixels need.

    Bits that hold no stored value become 0 or, where they are in one byte with a sign, repeat it. Raises
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
    """A segment's runs up to the last pixel; its bytes that are in no run, and bits that are in no value, go."""
    pixels = layout.height_px * layout.width_px
    if stored == 0xFF and (end := _find_end(segment, pixels)) is not None:
        bare = segment[:end]
    else:
        bare = _mask_runs(segment, pixels, _masking(layout, stored, shift))
    return bare + b"\0" * (len(bare) % 2)


def _find_end(segment: bytes, pixels: int) -> int | None:
    """Where the runs of so many pixels end; None where they do not fit, or a byte among them starts no run."""
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
    """The runs of so many pixels, each of their values as the table has it; raises `UndecodablePixelData`."""
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
    """What each value of a segment becomes."""
    sign_bit, values = layout.high_bit - shift, np.arange(256, dtype=np.uint8)
    masked = values & np.uint8(stored)
    if layout.signed and 0 <= sign_bit < 7:
        masked[values >> sign_bit & 1 == 1] |= np.uint8(0xFF & ~((2 << sign_bit) - 1))
    return masked
