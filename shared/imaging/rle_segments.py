"""The segments of an RLE frame, one for each byte of a cell, as they lie; nothing is unpacked (PS3.5 annex G)."""

import struct

from shared.errors import UndecodablePixelData

HEADER = struct.Struct("<16I")  # how many segments, and where up to 15 of them begin
#: A byte before which or after which a run may be, and which stands for no pixel.
NOTHING = 128
#: By the byte that starts it: how long a run is, and how many pixels it makes.
RUN_BYTES = [control + 2 if control < NOTHING else 2 for control in range(256)]
RUN_PIXELS = [control + 1 if control < NOTHING else 257 - control for control in range(256)]
RUN_BYTES[NOTHING], RUN_PIXELS[NOTHING] = 1, 0
#: To follow as many takes about a second; a film of 9 megapixels has about 100,000.
_MOST_RUNS = 8_000_000


def read_segments(frame: memoryview, count: int) -> list[memoryview]:
    """Return `count` segments; raise `UndecodablePixelData` for another number of them, or if one lies elsewhere."""
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
    """Raise `UndecodablePixelData` if the runs of a segment do not come to exactly so many pixels before it ends."""
    data, position = bytes(segment), 0
    try:
        for _ in range(_MOST_RUNS):
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
