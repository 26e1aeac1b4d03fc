"""Finds the segments of an RLE frame, one for each byte of a cell, without unpacking them (PS3.5 annex G)."""

import struct

from shared.errors import UndecodablePixelData

HEADER = struct.Struct("<16I")  # the number of segments, and the offsets of up to 15
#: A control byte without a pixel. It can occur between runs.
NOTHING = 128
#: The length of a run and the number of its pixels, by its first byte.
RUN_BYTES = [control + 2 if control < NOTHING else 2 for control in range(256)]
RUN_PIXELS = [control + 1 if control < NOTHING else 257 - control for control in range(256)]
RUN_BYTES[NOTHING], RUN_PIXELS[NOTHING] = 1, 0
#: Following this many runs takes about a second. A radiograph of 9 megapixels has about 100,000.
_MAX_RUNS = 8_000_000


def read_segments(frame: memoryview, count: int) -> list[memoryview]:
    """Return `count` segments; raises `UndecodablePixelData` for another number, or for an invalid offset."""
    if len(frame) < HEADER.size:
        raise UndecodablePixelData
    claimed, *offsets = HEADER.unpack_from(frame)
    if claimed != count:
        raise UndecodablePixelData
    places = list(zip(offsets[:count], [*offsets[1:count], len(frame)], strict=True))
    if any(not HEADER.size <= start <= end <= len(frame) for start, end in places):
        raise UndecodablePixelData
    return [frame[start:end] for start, end in places]


def check_runs(segment: memoryview, pixels: int) -> None:
    """Raise `UndecodablePixelData` if the runs of a segment do not give exactly `pixels` pixels before its end."""
    data, position = bytes(segment), 0
    try:
        for _ in range(_MAX_RUNS):
            if pixels <= 0:
                break
            control = data[position]
            position += RUN_BYTES[control]
            pixels -= RUN_PIXELS[control]
        else:
            return
    except IndexError:
        raise UndecodablePixelData from None
    if pixels < 0 or position > len(data):
        raise UndecodablePixelData
