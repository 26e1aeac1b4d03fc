"""Removes segments that define no pixels from JPEG 2000 and HTJ2K codestreams (ISO/IEC 15444-1 annex A).

It removes comments, profiles, registration, packet lengths, unknown markers, a JP2 file around the codestream, and data
after its end. Packets are copied bit for bit.
"""

import struct
from dataclasses import dataclass

from shared.errors import UndecodablePixelData
from shared.imaging.codestream import bare_jpeg_2000

_SOC, _EOC = b"\xff\x4f", b"\xff\xd9"
_CAP, _SIZ, _COD, _COC, _TLM, _QCD, _QCC, _RGN, _POC = 0x50, 0x51, 0x52, 0x53, 0x55, 0x5C, 0x5D, 0x5E, 0x5F
_PPM, _PPT, _SOT, _SOD = 0x60, 0x61, 0x90, 0x93
#: Segments that are required to read the packets (table A.2 and ISO/IEC 15444-15 annex A).
_KEPT = {_CAP, _SIZ, _COD, _COC, _QCD, _QCC, _RGN, _POC, _PPM, _PPT}
#: Segments that can occur several times with different parts. Of any other segment, a decoder uses only one.
_REPEATED = {_POC, _PPM, _PPT}
#: Segments that state their component; a grey image has only component 0.
_OF_COMPONENT = {_COC, _QCC, _RGN}
_WITHOUT_SEGMENT = range(0x30, 0x40)
#: Transforms of part 2, which would change the pixels.
_PART_2 = range(0x70, 0x80)
#: Markers that cannot occur in a header: the start and end of a codestream, of packets and of a packet header.
_MISPLACED = {0x4F, _SOT, 0x92, _SOD, 0xD9}
_SOT_BYTES = 12
_MAX_SEGMENTS, _MAX_TILE_PARTS = 1000, 100_000
#: Maximum number of 6-byte entries in one segment, and of segments.
_TLM_ENTRIES, _MAX_TLM = 10_000, 255
_MAX_LEVELS = 32
_MAX_PADDING_BYTES = 64


@dataclass(frozen=True)
class _TilePart:
    """The tile, part and number of parts from a start-of-tile-part segment (A.4.2), and the data after it."""

    tile: int
    part: int
    parts: int
    content: bytes

    @property
    def byte_count(self) -> int:
        return _SOT_BYTES + len(self.content)

    def to_bytes(self) -> bytes:
        """Return the tile-part with its new length."""
        return struct.pack(">BBHHIBB", 0xFF, _SOT, 10, self.tile, self.byte_count, self.part, self.parts) + self.content


def bare_codestream(data: bytes) -> bytes:
    """Return a codestream with only its pixels, without a file around it; raises `UndecodablePixelData`.

    A missing end marker is not added.
    """
    data = bare_jpeg_2000(data)
    if not data.startswith(_SOC):
        raise UndecodablePixelData
    try:
        header, position, markers = _read_header(data, len(_SOC), _SOT)
        tile_parts: list[_TilePart] = []
        while data[position : position + 2] != _EOC and not (tile_parts and _is_padding(data[position:])):
            tile_part, position = _read_tile_part(data, position)
            tile_parts.append(tile_part)
            if len(tile_parts) > _MAX_TILE_PARTS:
                raise UndecodablePixelData
    except (struct.error, IndexError) as exc:
        raise UndecodablePixelData from exc
    lengths = _tile_part_lengths(tile_parts) if _TLM in markers else []
    end_marker = data[position : position + len(_EOC)].rstrip(b"\0")
    return b"".join([_SOC, *header, *lengths, *(each.to_bytes() for each in tile_parts), end_marker])


def _is_padding(left: bytes) -> bool:
    """Return whether the last tile-part is followed only by zeros, or by half of the end marker and zeros."""
    return len(left) <= _MAX_PADDING_BYTES and left.rstrip(b"\0") in (b"", _EOC[:1])


def _read_tile_part(data: bytes, start: int) -> tuple[_TilePart, int]:
    """Return the tile-part at `start` and its end; without a stated length, it extends to the end of the codestream."""
    marker, length, tile, byte_count, part, parts = struct.unpack_from(">HHHIBB", data, start)
    if marker != 0xFF00 | _SOT or length != 10:
        raise UndecodablePixelData
    header, packets, _ = _read_header(data, start + _SOT_BYTES, _SOD)
    # Packets cannot contain the end marker: no two of their bytes are above FF8F (B.10.1 and annex C).
    end = start + byte_count if byte_count else data.find(_EOC, packets)
    if not packets <= end <= len(data):
        raise UndecodablePixelData
    return _TilePart(tile, part, parts, b"".join([*header, data[packets:end]])), end


def _read_header(data: bytes, position: int, last: int) -> tuple[list[bytes], int, set[int]]:
    """Return the segments to keep before the marker `last`, the position of `last`, and all markers before it."""
    kept: list[bytes] = []
    markers: set[int] = set()
    found: set[tuple[int, int]] = set()
    for _ in range(_MAX_SEGMENTS):
        prefix, marker = struct.unpack_from(">BB", data, position)
        if prefix != 0xFF or marker in _PART_2:
            raise UndecodablePixelData
        if marker == last:
            return kept, position, markers
        markers.add(marker)
        if marker in _WITHOUT_SEGMENT:
            position += 2
            continue
        (length,) = struct.unpack_from(">H", data, position + 2)
        body = data[position + 4 : position + 2 + length]
        if length < 2 or len(body) != length - 2 or marker in _MISPLACED:
            raise UndecodablePixelData
        if marker in _KEPT and not (marker in _OF_COMPONENT and body[0]):
            if not _has_its_length(marker, body) or (marker, 0) in found:
                raise UndecodablePixelData
            if marker not in _REPEATED:
                found.add((marker, 0))
            kept.append(data[position : position + 2 + length])
        position += 2 + length
    raise UndecodablePixelData


def _has_its_length(marker: int, body: bytes) -> bool:
    """Return whether a segment holds only the standard's fields (A.5 and A.6) for the one component of a grey image."""
    match marker:
        case 0x51:  # SIZ
            return len(body) == 36 + 3 * int.from_bytes(body[34:36], "big")
        case 0x50:  # CAP
            return len(body) == 4 + 2 * int.from_bytes(body[:4], "big").bit_count()
        case 0x52 | 0x53:  # COD, COC
            style, coding = (body[0], body[5:]) if marker == _COD else (body[1], body[2:])
            precincts = coding[0] + 1 if style & 1 else 0
            return coding[0] <= _MAX_LEVELS and len(coding) == 5 + precincts
        case 0x5C | 0x5D:  # QCD, QCC
            return len(body) <= 2 + 2 * (3 * _MAX_LEVELS + 1)
        case 0x5E:  # RGN
            return len(body) == 3
        case _:
            return True


def _tile_part_lengths(tile_parts: list[_TilePart]) -> list[bytes]:
    """Return TLM segments (A.7.1) with the new lengths of the tile-parts."""
    chunks = [tile_parts[start : start + _TLM_ENTRIES] for start in range(0, len(tile_parts), _TLM_ENTRIES)]
    if len(chunks) > _MAX_TLM:
        raise UndecodablePixelData
    return [
        struct.pack(">BBHBB", 0xFF, _TLM, 4 + 6 * len(chunk), number, 0x60)
        + b"".join(struct.pack(">HI", each.tile, each.byte_count) for each in chunk)
        for number, chunk in enumerate(chunks)
    ]
