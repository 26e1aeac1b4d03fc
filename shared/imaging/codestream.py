"""Read what a JPEG, JPEG-LS or JPEG 2000 codestream says of itself, before a native decoder believes it.

A decoder allocates what the codestream's own header asks for, so that header must agree with DICOM's beforehand.
"""

import struct
from dataclasses import dataclass

from shared.errors import UndecodablePixelData

_SOI, _EOI = b"\xff\xd8", b"\xff\xd9"
_J2K_START = b"\xff\x4f\xff\x51"  # SOC and SIZ, ISO/IEC 15444-1 annex A
_JP2_SIGNATURE = b"\0\0\0\x0cjP  "

# Start of frame: the JPEG processes, and SOF55 of JPEG-LS. C4, C8 and CC are other markers (ISO/IEC 10918-1 table B.1).
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} | {0xF7}


@dataclass(frozen=True)
class CodestreamHeader:
    """The geometry of one compressed frame."""

    height_px: int
    width_px: int
    components: int
    bits: int
    signed: bool


def begins_codestream(fragment: bytes) -> bool:
    """Whether a pixel data fragment opens a frame, rather than continues one."""
    return fragment.startswith((_SOI + b"\xff", _J2K_START, _JP2_SIGNATURE))


def ends_codestream(data: bytes) -> bool:
    """Whether the end marker is there; several decoders fill a frame that was cut off with grey and say nothing."""
    return _EOI in data[-64:] or data.startswith(_JP2_SIGNATURE)  # padding may follow; compressed data never has it


def read_codestream_header(data: bytes) -> CodestreamHeader:
    """Read the frame header; raises `UndecodablePixelData`."""
    try:
        if data.startswith(_SOI):
            return _read_jpeg(data)
        if data.startswith(_JP2_SIGNATURE):
            data = data[data.index(_J2K_START) :]
        if data.startswith(_J2K_START):
            return _read_jpeg_2000(data)
    except (IndexError, ValueError, struct.error) as exc:
        raise UndecodablePixelData from exc
    raise UndecodablePixelData


def _read_jpeg(data: bytes) -> CodestreamHeader:
    position = 2
    while True:
        position = data.index(b"\xff", position)
        while data[position] == 0xFF:  # fill bytes may come before a marker
            position += 1
        marker = data[position]
        (length,) = struct.unpack_from(">H", data, position + 1)
        if marker in _START_OF_FRAME:
            bits, height_px, width_px, components = struct.unpack_from(">BHHB", data, position + 3)
            return CodestreamHeader(height_px, width_px, components, bits, signed=False)
        position += 1 + length


def _read_jpeg_2000(data: bytes) -> CodestreamHeader:
    right, bottom, left, top = struct.unpack_from(">4I", data, 8)
    components, depth = struct.unpack_from(">HB", data, 40)
    return CodestreamHeader(bottom - top, right - left, components, (depth & 0x7F) + 1, signed=bool(depth & 0x80))
