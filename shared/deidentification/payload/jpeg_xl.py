"""Removes the file around a JPEG XL codestream, and data after its end (ISO/IEC 18181-1).

The boxes of a file can hold EXIF, XML, and the application data of a recompressed JPEG. A codestream has no end marker,
so its end is computed from the table of contents of its one frame. A codestream with features that no radiograph needs
and that can hold text (a colour profile, a name, extensions, several frames) is rejected.
"""

import math
from contextlib import suppress

from shared.errors import UndecodablePixelData
from shared.imaging.codestream import read_boxes
from shared.imaging.jpeg_xl import (
    BITS,
    CONTAINER,
    COUNT,
    ENUM,
    GREY,
    SIGNATURE,
    Bits,
    Ways,
    read_extra_fields,
    read_size,
)

#: Enough for a frame of 64 megapixels in groups of 128 × 128.
_HEADER_BYTES = 64 * 1024
_U64: Ways = ((0, 0), (1, 4), (17, 8), (0, 0))
_NAME_BYTES: Ways = ((0, 0), (0, 4), (16, 5), (48, 10))
_SECTION_BYTES: Ways = ((0, 10), (1024, 14), (17408, 22), (4211712, 30))
#: Upper limit of the bytes per section that the order of sections takes.
_BYTES_OF_ORDER = 4
_BLEND_MODE: Ways = ((0, 0), (1, 0), (2, 0), (3, 2))
_CUSTOM_WHITE_POINT = 2
_USES_DC_FRAME = 32
_REGULAR_GROUPS = 1


def bare_jpeg_xl(data: bytes) -> bytes:
    """Return the codestream of one grey frame, up to its end; raises `UndecodablePixelData`."""
    if data.startswith(CONTAINER):
        data = _unwrap(data)
    if not data.startswith(SIGNATURE):
        raise UndecodablePixelData
    bits = Bits(data[len(SIGNATURE) : _HEADER_BYTES])
    height_px, width_px = read_size(bits)
    uses_xyb = _read_metadata(bits)
    bits.byte_position()
    group_shift = _read_frame_header(bits, uses_xyb=uses_xyb)
    count = _count_sections(height_px, width_px, group_shift)
    if bits.flag():
        end = _find_end(bits, count, len(data) - len(SIGNATURE))
    else:
        bits.byte_position()
        end = _read_end(bits, count)
    _expect(len(SIGNATURE) + end <= len(data))
    return data[: len(SIGNATURE) + end]


def _read_end(bits: Bits, count: int, max_bytes: float = math.inf) -> int:
    """Return the end of the last of `count` sections, from the table of their lengths (annex F.3)."""
    sections = 0
    for _ in range(count):
        sections += bits.integer(_SECTION_BYTES)
        _expect(sections <= max_bytes)
    return bits.byte_position() + sections


def _find_end(bits: Bits, count: int, byte_count: int) -> int:
    """Return the end of a codestream with reordered sections, if it ends with the data.

    The order is entropy-coded before the lengths. The lengths are found without decoding it: their sum must lead to the
    end of the data, or to the byte before it, which can be padding to an even length.
    """
    start = bits.next_byte()
    for position in range(start, start + _BYTES_OF_ORDER * count):
        with suppress(UndecodablePixelData):
            end = _read_end(bits.at(position), count, byte_count)
            if byte_count - 1 <= end <= byte_count:
                return end
    raise UndecodablePixelData


def _unwrap(data: bytes) -> bytes:
    """Return a codestream from one box or several boxes (ISO/IEC 18181-2); the last of several is marked as last."""
    parts: list[bytes] = []
    for kind, content in read_boxes(data):
        if kind == b"jxlc":
            return content
        if kind == b"jxlp":
            parts.append(content[4:])
            if content[:1] >= b"\x80":
                return b"".join(parts)
    raise UndecodablePixelData


def _read_metadata(bits: Bits) -> bool:
    """Read ImageMetadata (annex D) of a grey image; return whether it is stored in the XYB colour space."""
    _expect(not bits.flag())  # all defaults: three colours
    has_extra_fields = bits.flag()
    if has_extra_fields:
        read_extra_fields(bits)
    _expect(not bits.flag())  # floats
    bits.integer(BITS)
    bits.take(1)  # whether 16-bit buffers are enough for decoding
    _expect(bits.integer(COUNT) == 0)  # extra channels
    uses_xyb = bits.flag()
    _expect(not bits.flag() and not bits.flag())  # RGB; an ICC profile
    _expect(bits.integer(ENUM) == GREY)
    _expect(bits.integer(ENUM) != _CUSTOM_WHITE_POINT)
    if bits.flag():
        bits.take(24)  # gamma
    else:
        bits.integer(ENUM)  # the transfer function
    bits.integer(ENUM)  # rendering intent
    if has_extra_fields:
        _expect(bits.flag())  # default tone mapping
    _expect(bits.integer(_U64) == 0)  # extensions
    _expect(bits.flag())  # default transforms
    return uses_xyb


def _read_frame_header(bits: Bits, *, uses_xyb: bool) -> int:
    """Read the FrameHeader (annex F) of a regular frame, which is the last and has one pass; return its group size."""
    if bits.flag():
        return _REGULAR_GROUPS
    _expect(bits.take(2) == 0)  # a regular frame
    is_modular = bits.flag()
    _expect(not bits.integer(_U64) & _USES_DC_FRAME)
    if not uses_xyb and bits.flag():
        bits.take(6)  # subsampling of YCbCr
    _expect(bits.take(2) == 0)  # upsampling
    group_shift = _REGULAR_GROUPS
    if is_modular:
        group_shift = bits.take(2)
    elif uses_xyb:
        bits.take(6)  # scales of X and B
    _expect(bits.take(2) == 0)  # one pass
    _expect(not bits.flag())  # the frame covers only a part of the image
    _expect(bits.integer(_BLEND_MODE) == 0)
    _expect(bits.flag())  # the last frame
    _expect(bits.integer(_NAME_BYTES) == 0)
    _read_loop_filter(bits, is_modular=is_modular)
    _expect(bits.integer(_U64) == 0)  # extensions
    return group_shift


def _read_loop_filter(bits: Bits, *, is_modular: bool) -> None:
    if bits.flag():
        return
    if bits.flag():
        _expect(not bits.flag())  # custom weights
    if bits.take(2):
        for _ in range(2 if is_modular else 3):
            _expect(not bits.flag())  # custom parameters
    _expect(bits.integer(_U64) == 0)  # extensions


def _count_sections(height_px: int, width_px: int, group_shift: int) -> int:
    """Count the sections of the table of contents (annex F.3): one, or 2 + groups + blocks of 8 × 8 groups."""
    side = 128 << group_shift
    groups = -(-height_px // side) * -(-width_px // side)
    return 1 if groups == 1 else 2 + groups + -(-height_px // (8 * side)) * -(-width_px // (8 * side))


def _expect(holds: bool) -> None:
    if not holds:
        raise UndecodablePixelData
