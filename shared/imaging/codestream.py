"""Reads the header of a compressed frame before a native decoder uses it.

A decoder allocates the size that the codestream's header states. That header must match the DICOM header first.
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from shared.errors import UndecodablePixelData

_SOI, _EOI, _SOS = b"\xff\xd8", b"\xff\xd9", b"\xff\xda"
_FILL = re.compile(b"\xff+")
#: A colour profile of 16 MiB takes 256 segments.
_MAX_SEGMENTS = 1000
#: A scan of a few bytes can process every pixel again. Writers make about ten scans.
_MAX_SCANS = 200
_J2K_START = b"\xff\x4f\xff\x51"  # SOC and SIZ, ISO/IEC 15444-1 annex A
_JP2_SIGNATURE = b"\0\0\0\x0cjP  "

# Start of frame: the JPEG processes, and SOF55 of JPEG-LS. C4, C8 and CC are other markers (ISO/IEC 10918-1 table B.1).
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} | {0xF7}
_SOT, _SOT_BYTES = b"\xff\x90", 12  # start of tile-part
_PROGRESSIVE = {0xC2, 0xCA}
#: A file around a codestream has a few boxes, and a codestream's main header a few markers.
_MAX_BOXES = _MAX_MARKERS = 1000
#: Tiles are hundreds of pixels wide, with a few parts each.
_MAX_TILE_PARTS = 100_000
#: Writers pad a frame to an even length or to a block, not always with zeros.
_TAIL_BYTES = 64


@dataclass(frozen=True)
class CodestreamHeader:
    """The geometry of one compressed frame."""

    height_px: int
    width_px: int
    components: int
    bits: int
    signed: bool
    #: Whether the end marker is present. Several decoders silently fill a cut-off frame with grey.
    ended: bool


def begins_codestream(fragment: bytes) -> bool:
    """Return whether a pixel data fragment starts a frame; JPEG XL cannot be recognised by its two-byte signature."""
    return fragment.startswith((_SOI + b"\xff", _J2K_START, _JP2_SIGNATURE))


def read_jpeg_header(data: bytes) -> CodestreamHeader:
    """Read the frame header of JPEG or JPEG-LS, ISO/IEC 10918-1 B.2.2; raises `UndecodablePixelData`."""
    for marker, start, _ in jpeg_segments(data):
        if marker in _START_OF_FRAME:
            bits, height_px, width_px, components = _unpack(">BHHB", data, start)
            # Compressed data never contain the marker. The search takes a fifth of the decoding time, so it runs only
            # if there can be more than one scan.
            if (marker in _PROGRESSIVE or components > 1) and data.count(_SOS, start) > _MAX_SCANS:
                raise UndecodablePixelData
            # Bytes after the end marker are allowed, and nothing else after the frame header looks like the marker.
            ended = data.rfind(_EOI, start) >= 0
            return CodestreamHeader(height_px, width_px, components, bits, signed=False, ended=ended)
    raise UndecodablePixelData


def jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield the marker, the start and the end of each segment before the first scan.

    Raises `UndecodablePixelData` for an invalid segment, or for more segments than any writer makes.
    """
    position = len(_SOI)
    if not data.startswith(_SOI):
        raise UndecodablePixelData
    for _ in range(_MAX_SEGMENTS):
        fill = _FILL.search(data, position)  # any number of fill bytes may precede a marker
        if fill is None:
            break
        position = fill.end()
        marker, length = _unpack(">BH", data, position)
        if length < 2:
            break
        yield marker, position + 3, position + 1 + length
        if marker == _SOS[1]:
            return
        position += 1 + length
    raise UndecodablePixelData


def bare_jpeg_2000(data: bytes) -> bytes:
    """Return a codestream without a JP2 file around it, which DICOM forbids (PS3.5 A.4.4) but some writers keep."""
    return find_box(data, b"jp2c") if data.startswith(_JP2_SIGNATURE) else data


def read_jpeg_2000_header(data: bytes) -> CodestreamHeader:
    """Read the image and tile size of JPEG 2000 or HTJ2K, ISO/IEC 15444-1 A.5.1; raises `UndecodablePixelData`."""
    if not data.startswith(_J2K_START):
        raise UndecodablePixelData
    right, bottom, left, top = _unpack(">4I", data, 8)
    components, depth = _unpack(">HB", data, 40)
    tail = data[-_TAIL_BYTES:] if data[-1] else data.rstrip(b"\0")[-_TAIL_BYTES:]
    bits, signed = (depth & 0x7F) + 1, bool(depth & 0x80)
    return CodestreamHeader(bottom - top, right - left, components, bits, signed, ended=_EOI in tail)


def read_htj2k_header(data: bytes) -> CodestreamHeader:
    """Like `read_jpeg_2000_header`, but compute the position of the end from the tile-part lengths.

    The HTJ2K decoder does not notice data missing before the end; the JPEG 2000 decoder does. See ISO/IEC 15444-1
    A.4.2.
    """
    header, end = read_jpeg_2000_header(data), find_tile_parts_end(data)
    return header if end is None else replace(header, ended=data.startswith(_EOI, end))


def find_tile_parts_end(data: bytes) -> int | None:
    """Return the end of the last tile-part, computed from the tile-part lengths.

    Returns None if the last tile-part states no length and extends to the end of the codestream. Raises
    `UndecodablePixelData`.
    """
    position = len(_EOI)
    for _ in range(_MAX_MARKERS):
        if data.startswith(_SOT, position):
            break
        position += 2 + _unpack(">H", data, position + 2)[0]
    for _ in range(_MAX_TILE_PARTS):
        if not data.startswith(_SOT, position):
            break
        (length,) = _unpack(">I", data, position + 6)
        if length == 0:
            return None
        position += max(length, _SOT_BYTES)
    return position


def find_box(data: bytes, *kinds: bytes) -> bytes:
    """Return the content of the first box of one of `kinds`; raises `UndecodablePixelData` if there is none."""
    for kind, content in read_boxes(data):
        if kind in kinds:
            return content
    raise UndecodablePixelData


def read_boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the kind and the content of each box of a file, ISO/IEC 15444-1 I.4; raises `UndecodablePixelData`."""
    position = 0
    for _ in range(_MAX_BOXES):
        if position == len(data):
            return
        length, kind = _unpack(">I4s", data, position)
        head = 8
        if length == 1:
            (length,) = _unpack(">Q", data, position + 8)
            head = 16
        end = position + length if length else len(data)  # 0: the box extends to the end
        if length and (length < head or end > len(data)):
            break
        yield kind, data[position + head : end]
        position = end
    raise UndecodablePixelData


def _unpack(form: str, data: bytes, position: int) -> tuple[Any, ...]:
    try:
        return struct.unpack_from(form, data, position)
    except struct.error as exc:
        raise UndecodablePixelData from exc
