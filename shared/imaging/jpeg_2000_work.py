"""Limits the work that a JPEG 2000 or HTJ2K codestream demands of its decoder, before the decoder starts.

A few kilobytes can demand a table for every 2 × 2 pixels, or 65,535 layers of each, which takes gigabytes and minutes.
No writer does so. Sections and tables are those of ISO/IEC 15444-1.
"""

import struct
from collections.abc import Generator, Iterator
from dataclasses import dataclass

from shared.errors import UndecodablePixelData

#: Limit for all tiles and resolutions together. 64 megapixels in tiles of 128 × 128 have 24,000 precincts.
MAX_PRECINCTS = 200_000
#: A packet is the part of a precinct in one layer. Writers create 1 to 20 layers.
MAX_PACKETS = 1_000_000
#: 64 megapixels have 330,000 blocks of 16 × 16, a quarter of the smallest area that writers use.
MAX_BLOCKS = 1_000_000
#: Maximum number of bits of a coefficient; the HTJ2K decoder crashes on more.
_MAX_BITS = 30

_COD, _COC, _QCD, _QCC, _SOT, _SOD = 0xFF52, 0xFF53, 0xFF5C, 0xFF5D, 0xFF90, 0xFF93
_MAX_SEGMENTS, _MAX_TILE_PARTS = 1000, 100_000
_SOT_BYTES = 12
_MAX_LEVELS, _MAX_PRECINCT = 32, 15


def check_work(data: bytes) -> None:
    """Raise `UndecodablePixelData` for a codestream that demands more work than those of any writer."""
    try:
        grid = _read_grid(data)
        layers = 1
        for marker, body in _segments(data):
            if marker == _COD:
                (layers,) = struct.unpack_from(">H", body, 2)
                grid.check(layers, has_precincts=bool(body[0] & 1), coding=body[5:])
            elif marker == _COC:
                grid.check(layers, has_precincts=bool(body[1] & 1), coding=body[2:])
            elif marker in (_QCD, _QCC):
                _check_bits(body if marker == _QCD else body[1:])
    except (struct.error, IndexError) as exc:
        raise UndecodablePixelData from exc


@dataclass(frozen=True)
class _Grid:
    """The tiles of an image (A.5.1)."""

    tiles: int
    tile_height_px: int
    tile_width_px: int

    def check(self, layers: int, *, has_precincts: bool, coding: bytes) -> None:
        """Count the precincts and blocks of a coding style (table A.20); `coding` starts with the number of levels.

        Raises `UndecodablePixelData` if they are too many.
        """
        levels, block_width, block_height = coding[0], coding[1] + 2, coding[2] + 2  # blocks: as powers of 2
        if levels > _MAX_LEVELS:
            raise UndecodablePixelData
        precincts = blocks = 0
        for resolution in range(levels + 1):
            shift = levels - resolution
            height_px, width_px = _shifted(self.tile_height_px, shift), _shifted(self.tile_width_px, shift)
            size = coding[5 + resolution] if has_precincts else _MAX_PRECINCT * 0x11
            count = _shifted(height_px, size >> 4) * _shifted(width_px, size & 0xF)
            tall, wide = min(block_height, size >> 4), min(block_width, size & 0xF)
            precincts += self.tiles * count
            blocks += self.tiles * max(count, _shifted(height_px, tall) * _shifted(width_px, wide))
        if precincts > MAX_PRECINCTS or precincts * layers > MAX_PACKETS or blocks > MAX_BLOCKS:
            raise UndecodablePixelData


def _read_grid(data: bytes) -> _Grid:
    right, bottom, left_of_image, top_of_image, width_px, height_px, left, top = struct.unpack_from(">8I", data, 8)
    # The first tile must start before the image and overlap it; otherwise the HTJ2K decoder never ends.
    if not (left <= left_of_image < left + width_px and top <= top_of_image < top + height_px):
        raise UndecodablePixelData
    if left_of_image >= right or top_of_image >= bottom:
        raise UndecodablePixelData
    across, down = -((left - right) // width_px), -((top - bottom) // height_px)
    return _Grid(across * down, min(height_px, bottom - top), min(width_px, right - left))


def _shifted(length: int, bits: int) -> int:
    """Return a length in units of 2 to the power of `bits`, rounded up."""
    return -(-length >> bits)


def _check_bits(body: bytes) -> None:
    """Raise `UndecodablePixelData` if a quantisation needs coefficients of too many bits (tables A.27 to A.30)."""
    guard_bits, style = body[0] >> 5, body[0] & 0x1F
    exponents = (byte >> 3 for byte in (body[1:] if style == 0 else body[1::2]))
    if any(guard_bits + exponent - 1 > _MAX_BITS for exponent in exponents):
        raise UndecodablePixelData


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the marker and the body of each segment of the main header and of all tile-part headers."""
    position = yield from header_segments(data, 2)
    for _ in range(_MAX_TILE_PARTS):
        if data[position : position + 2] != _SOT.to_bytes(2, "big"):
            return
        (length,) = struct.unpack_from(">I", data, position + 6)
        yield from header_segments(data, position + _SOT_BYTES)
        if length == 0:  # the tile-part extends to the end
            return
        position += max(length, _SOT_BYTES)
    raise UndecodablePixelData


def header_segments(data: bytes, position: int) -> Generator[tuple[int, bytes], None, int]:
    """Yield the segments from `position` to the first tile-part or packets; return the position of these.

    Raises `UndecodablePixelData`, and `struct.error` if the data end too early.
    """
    for _ in range(_MAX_SEGMENTS):
        (marker,) = struct.unpack_from(">H", data, position)
        if marker in (_SOT, _SOD):
            return position
        (length,) = struct.unpack_from(">H", data, position + 2)
        yield marker, data[position + 4 : position + 2 + length]
        position += 2 + length
    raise UndecodablePixelData
