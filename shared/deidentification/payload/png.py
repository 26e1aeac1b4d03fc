"""Removes all data that defines no pixels from PNG files (PNG third edition, sections 5, 7.2, 11)."""

import struct
import zlib

from shared.errors import ImageTooLarge, UndecodablePixelData
from shared.imaging.picture_header import PNG_SIGNATURE, read_png_chunks

_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_PALETTE = 3
#: The first pixel and the pixel distance of each pass of an interlaced image: x, y, dx, dy (section 8.1).
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
#: Maximum input and output of one inflate call; with small pieces, copying the unused input is fast.
_PIECE_BYTES, _INFLATED_BYTES = 1 << 16, 1 << 20


def bare_png(data: bytes, *, max_bytes: int) -> bytes:
    """Return the file with only its header, its palette if pixels use one, and its pixels up to their stream's end.

    Raises `UndecodablePixelData`, and `ImageTooLarge` if the inflated pixels exceed twice `max_bytes`.
    """
    header, palette, pixels = b"", b"", []
    stream = zlib.decompressobj()
    left = 0
    for kind, content in read_png_chunks(data):
        if kind == b"IHDR" and not header:
            header, left = content, _row_bytes(content)
            if left > 2 * max_bytes:
                raise ImageTooLarge
        elif kind == b"PLTE" and header[9:10] == bytes([_PALETTE]) and not palette:
            palette = content
            if len(palette) > 3 << header[8] or len(palette) % 3:
                raise UndecodablePixelData
        elif kind == b"IDAT" and not stream.eof:
            inflated, used = _inflate(stream, content, left)
            left -= inflated
            pixels.append(content[:used])
    if left or not stream.eof:
        raise UndecodablePixelData
    chunks = [(b"IHDR", header), *([(b"PLTE", palette)] if palette else []), *((b"IDAT", each) for each in pixels)]
    return b"".join([PNG_SIGNATURE, *(_chunk(*each) for each in chunks), _chunk(b"IEND", b"")])


def _row_bytes(header: bytes) -> int:
    """Return the size of all rows, including the filter byte of each; raises `UndecodablePixelData`."""
    if len(header) != 13:
        raise UndecodablePixelData
    width, height, depth, colour, _, _, interlaced = struct.unpack(">2I5B", header)
    if not width or not height or colour not in _CHANNELS or depth not in (1, 2, 4, 8, 16) or interlaced > 1:
        raise UndecodablePixelData
    bits = depth * _CHANNELS[colour]
    passes = _PASSES if interlaced else ((0, 0, 1, 1),)
    sizes = ((max(0, -(-(width - x) // dx)), max(0, -(-(height - y) // dy))) for x, y, dx, dy in passes)
    return sum(rows * (1 + -(-columns * bits // 8)) for columns, rows in sizes if columns)


def _inflate(stream: "zlib._Decompress", content: bytes, max_bytes: int) -> tuple[int, int]:
    """Return the inflated size of a piece of the stream, and how many of its bytes belong to the stream.

    Raises `UndecodablePixelData` if the inflated size exceeds `max_bytes`.
    """
    count = 0
    for start in range(0, len(content), _PIECE_BYTES):
        piece = content[start : start + _PIECE_BYTES]
        end = start + len(piece)
        while piece and not stream.eof:
            try:
                count += len(stream.decompress(piece, _INFLATED_BYTES))
            except zlib.error as exc:
                raise UndecodablePixelData from exc
            if count > max_bytes:
                raise UndecodablePixelData
            piece = stream.unconsumed_tail
        if stream.eof:
            return count, end - len(stream.unused_data)
    return count, len(content)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", len(content), kind) + content + struct.pack(">I", zlib.crc32(content, zlib.crc32(kind)))
