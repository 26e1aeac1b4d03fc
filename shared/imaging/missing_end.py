"""Decodes frames that lack their end marker, if they lack nothing else.

Decoders silently fill a cut-off frame with grey, so they cannot tell whether it is complete. A JPEG 2000 frame is
complete if the lengths of its tile-parts match. A JPEG is complete if no restart marker is missing and no appended data
changes a pixel. A JPEG-LS stream is complete if its decoder rejects one more bit.
"""

import math
import re
import struct
from collections.abc import Callable

import numpy as np

from shared.errors import UndecodablePixelData
from shared.imaging.codestream import find_tile_parts_end, jpeg_segments
from shared.imaging.grey_levels import Pixels
from shared.imaging.transfer_syntaxes import Packing

_EOI, _STUFFED = b"\xff\xd9", b"\xff\0"
#: Maximum number of bytes after a frame without end marker: half of the marker, or padding.
_MAX_LEFT_BYTES = 64
#: Sequential and lossless JPEG with Huffman codes have one scan. Other processes can have several, and a missing one
#: cannot be detected.
_LOSSLESS = 0xC3
_ONE_SCAN = {0xC0, 0xC1, _LOSSLESS}
_RESTART_INTERVAL, _RESTART = 0xDD, re.compile(rb"\xff[\xd0-\xd7]")
_BLOCK_PX = 8
#: Continuations of compressed data that differ from each other in every byte; FF is stuffed (ISO/IEC 10918-1 B.1.1.5).
_CONTINUATIONS = (b"", bytes(256), b"\xff\0" * 256, b"\x55\xaa\x0f\x33" * 64, struct.pack("<64I", *range(7, 71)))

_ONE_BIT = b"\x80"


def decode_without_end(frame: bytes, packing: Packing, decode: Callable[[bytes], Pixels]) -> Pixels:
    """Decode a frame that lacks only its end marker; raises `UndecodablePixelData` if more may be missing.

    Zeros at the end count as padding and are removed: they may replace the last byte of the data.
    """
    bare = frame.rstrip(b"\0").removesuffix(_EOI[:1])
    if len(frame) - len(bare) > _MAX_LEFT_BYTES:
        raise UndecodablePixelData
    match packing:
        case Packing.JPEG_2000 | Packing.HTJ2K if find_tile_parts_end(bare) == len(bare):
            return decode(bare + _EOI)
        case Packing.JPEG_LS:
            pixels = decode(bare + _EOI)
            if _refuses(decode, bare + _ONE_BIT + _EOI):
                return pixels
        case Packing.JPEG if _has_every_interval(bare):
            if frame.startswith(_STUFFED, len(bare)):
                bare += _STUFFED
            pixels, *others = (decode(bare + continuation + _EOI) for continuation in _CONTINUATIONS)
            if all(np.array_equal(pixels, other) for other in others):
                return pixels
    raise UndecodablePixelData


def _has_every_interval(frame: bytes) -> bool:
    """Return whether all restart intervals of a grey JPEG of one scan start (ISO/IEC 10918-1 B.2.4.4).

    If a restart marker is missing, a decoder fills the rest with grey and skips all further data.
    """
    interval, process, units, scan = 0, 0, 0, len(frame)
    for marker, start, end in jpeg_segments(frame):
        scan = end
        if marker == _RESTART_INTERVAL and end - start >= 2:
            (interval,) = struct.unpack_from(">H", frame, start)
        elif marker in _ONE_SCAN:
            process, (height_px, width_px) = marker, struct.unpack_from(">HH", frame, start + 1)
            side_px = 1 if process == _LOSSLESS else _BLOCK_PX
            units = math.ceil(height_px / side_px) * math.ceil(width_px / side_px)
    markers = len(_RESTART.findall(frame, scan)) if interval else 0
    return process in _ONE_SCAN and (not interval or markers >= math.ceil(units / interval) - 1)


def _refuses(decode: Callable[[bytes], Pixels], data: bytes) -> bool:
    try:
        decode(data)
    except (RuntimeError, ValueError):  # RuntimeError is the base of all imagecodecs errors
        return True
    return False
