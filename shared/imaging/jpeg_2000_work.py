"""What a JPEG 2000 or HTJ2K codestream asks of its decoder beside its pixels, before the decoder does it.

A few kilobytes can ask for a table of every 2 × 2 pixels, or for 65,535 layers of each, which takes gigabytes and
minutes; no writer does. Sections and tables are of ISO/IEC 15444-1.
"""

import struct
from collections.abc import Generator, Iterator
from dataclasses import dataclass

from shared.errors import UndecodablePixelData

#: Of all tiles and resolutions together; the precincts of 64 megapixels, in tiles of 128 × 128, are 24,000.
MOST_PRECINCTS = 200_000
#: A precinct's part in a layer; writers make 1 to 20 layers.
MOST_PACKETS = 1_000_000
#: Of 64 megapixels in blocks of 16 × 16, a quarter of the least that writers make, there are 330,000.
MOST_BLOCKS = 1_000_000
#: Bits of a coefficient; HTJ2K's decoder crashes on more.
_MOST_BITS = 30

_COD, _COC, _QCD, _QCC, _SOT, _SOD = 0xFF52, 0xFF53, 0xFF5C, 0xFF5D, 0xFF90, 0xFF93
_MOST_SEGMENTS, _MOST_TILE_PARTS = 1000, 100_000
_SOT_BYTES = 12
_MOST_LEVELS, _LARGEST_PRECINCT = 32, 15


def check_work(data: bytes) -> None:
    """Raise `UndecodablePixelData` for a codestream that asks for more than any writer does."""
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
    """The tiles of an image, A.5.1."""

    tiles: int
    tile_height_px: int
    tile_width_px: int

    def check(self, layers: int, *, has_precincts: bool, coding: bytes) -> None:
        """Count what a coding style comes to, table A.20; `coding` begins with the number of its levels."""
        levels, block_width, block_height = coding[0], coding[1] + 2, coding[2] + 2  # the latter in powers of 2
        if levels > _MOST_LEVELS:
            raise UndecodablePixelData
        precincts = blocks = 0
        for resolution in range(levels + 1):
            shift = levels - resolution
            height_px, width_px = _shifted(self.tile_height_px, shift), _shifted(self.tile_width_px, shift)
            size = coding[5 + resolution] if has_precincts else _LARGEST_PRECINCT * 0x11
            count = _shifted(height_px, size >> 4) * _shifted(width_px, size & 0xF)
            tall, wide = min(block_height, size >> 4), min(block_width, size & 0xF)
            precincts += self.tiles * count
            blocks += self.tiles * max(count, _shifted(height_px, tall) * _shifted(width_px, wide))
        if precincts > MOST_PRECINCTS or precincts * layers > MOST_PACKETS or blocks > MOST_BLOCKS:
            raise UndecodablePixelData


def _read_grid(data: bytes) -> _Grid:
    right, bottom, left_of_image, top_of_image, width_px, height_px, left, top = struct.unpack_from(">8I", data, 8)
    # The first tile has to begin before the image does, and to reach into it; else HTJ2K's decoder looks for ever.
    if not (left <= left_of_image < left + width_px and top <= top_of_image < top + height_px):
        raise UndecodablePixelData
    if left_of_image >= right or top_of_image >= bottom:
        raise UndecodablePixelData
    across, down = -((left - right) // width_px), -((top - bottom) // height_px)
    return _Grid(across * down, min(height_px, bottom - top), min(width_px, right - left))


def _shifted(length: int, bits: int) -> int:
    """A length in units of 2 to the power of `bits`, rounded up."""
    return -(-length >> bits)


def _check_bits(body: bytes) -> None:
    """Raise where a quantisation asks for coefficients of too many bits, tables A.27 to A.30."""
    guard_bits, style = body[0] >> 5, body[0] & 0x1F
    exponents = (byte >> 3 for byte in (body[1:] if style == 0 else body[1::2]))
    if any(guard_bits + exponent - 1 > _MOST_BITS for exponent in exponents):
        raise UndecodablePixelData


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the marker and the body of each segment of the main header and of every tile-part's."""
    position = yield from header_segments(data, 2)
    for _ in range(_MOST_TILE_PARTS):
        if data[position : position + 2] != _SOT.to_bytes(2, "big"):
            return
        (length,) = struct.unpack_from(">I", data, position + 6)
        yield from header_segments(data, position + _SOT_BYTES)
        if length == 0:  # up to the end
            return
        position += max(length, _SOT_BYTES)
    raise UndecodablePixelData


def header_segments(data: bytes, position: int) -> Generator[tuple[int, bytes], None, int]:
    """Yield the segments from there to the first tile-part or to the packets; return where these begin.

    Raises `UndecodablePixelData`, and `struct.error` where the data end before.
    """
    for _ in range(_MOST_SEGMENTS):
        (marker,) = struct.unpack_from(">H", data, position)
        if marker in (_SOT, _SOD):
            return position
        (length,) = struct.unpack_from(">H", data, position + 2)
        yield marker, data[position + 4 : position + 2 + length]
        position += 2 + length
    raise UndecodablePixelData
