"""Reads the header of a PNG or JPEG file."""

import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from shared.errors import ColourImage, MultiFrameImage, UndecodablePixelData
from shared.imaging.codestream import jpeg_segments, read_jpeg_header

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
#: Limit of chunks before the pixels; writers create about ten.
_MAX_CHUNKS = 10_000
#: Limit of chunks including pixels; the most common writer puts 8 KiB into a chunk.
_MAX_CHUNKS_AND_PIXELS = 200_000
_PIXEL_CHUNKS = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}
_APP1, _EXIF = 0xE1, b"Exif\0\0"
_BYTE_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}
_ORIENTATION, _SHORT = 0x0112, 3
_CHANNELS_OF_CMYK = 4


@dataclass(frozen=True)
class PictureHeader:
    """The stored size of an image, and the orientation in which to display it."""

    stored_height_px: int
    stored_width_px: int
    #: The EXIF orientation, 1 to 8.
    orientation: int = 1

    @property
    def size_px(self) -> tuple[int, int]:
        """Height and width of the displayed image."""
        stored = self.stored_height_px, self.stored_width_px
        return stored[::-1] if self.orientation >= 5 else stored


def read_picture_header(prefix: bytes) -> PictureHeader:
    """Read the header of a PNG or JPEG file from its first part.

    The EXIF orientation of a JPEG is used. That of a PNG is ignored, because it can come after the pixels. Raises
    `ColourImage` for CMYK, `MultiFrameImage` for an animation, and `UndecodablePixelData`.
    """
    return _read_png(prefix) if prefix.startswith(PNG_SIGNATURE) else _read_jpeg(prefix)


def bare_png(data: bytes) -> bytes:
    """Return a PNG with only the chunks that define pixels, for a decoder: texts and profiles can inflate to any size.

    Raises `UndecodablePixelData`.
    """
    chunks = (struct.pack(">I4s", len(content), kind) + content + crc for kind, content, crc in _read_chunks(data))
    return b"".join([PNG_SIGNATURE, *chunks])


def read_png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the kind and the content of each chunk that defines pixels, up to the end.

    Raises `UndecodablePixelData` if the file is cut off, if a checksum is wrong, or for an unknown critical chunk.
    """
    for kind, content, crc in _read_chunks(data):
        if zlib.crc32(content, zlib.crc32(kind)) != int.from_bytes(crc, "big"):
            raise UndecodablePixelData
        yield kind, content


def _read_chunks(data: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    position = len(PNG_SIGNATURE)
    for _ in range(_MAX_CHUNKS_AND_PIXELS):
        head = data[position : position + 8]
        end = position + 12 + int.from_bytes(head[:4], "big")
        kind = head[4:]
        if len(kind) < 4 or end > len(data) or (kind not in _PIXEL_CHUNKS and kind[:1].isupper()):
            break
        if kind in _PIXEL_CHUNKS:
            yield kind, data[position + 8 : end - 4], data[end - 4 : end]
        if kind == b"IEND":
            return
        position = end
    raise UndecodablePixelData


def _read_png(prefix: bytes) -> PictureHeader:
    """Read the chunks up to the first one with pixels (PNG section 5.3); an animation is declared before it."""
    size: tuple[int, int] | None = None
    position = len(PNG_SIGNATURE)
    for _ in range(_MAX_CHUNKS):
        if position + 8 > len(prefix):
            break
        length, kind = struct.unpack_from(">I4s", prefix, position)
        numbers = struct.unpack(">2I", prefix[position + 8 : position + 16].ljust(8, b"\0"))
        if size is None:
            if kind != b"IHDR" or not all(numbers):
                raise UndecodablePixelData
            size = numbers[1], numbers[0]
        elif kind == b"acTL" and numbers[0] > 1:
            raise MultiFrameImage
        elif kind == b"IDAT":
            break
        position += 12 + length
    else:
        raise UndecodablePixelData
    if size is None:
        raise UndecodablePixelData
    return PictureHeader(*size)


def _read_jpeg(prefix: bytes) -> PictureHeader:
    header = read_jpeg_header(prefix)
    if header.components == _CHANNELS_OF_CMYK:
        raise ColourImage
    if header.components not in (1, 3):
        raise UndecodablePixelData
    return PictureHeader(header.height_px, header.width_px, _read_orientation(prefix))


def _read_orientation(prefix: bytes) -> int:
    """Return the EXIF orientation; 1 (as stored) if it is missing or unreadable."""
    for marker, start, end in jpeg_segments(prefix):
        if marker == _APP1 and prefix.startswith(_EXIF, start):
            orientation = _find_orientation(prefix[start + len(_EXIF) : end]) or 1
            return orientation if orientation in range(1, 9) else 1
    return 1


def _find_orientation(tiff: bytes) -> int | None:
    """Return the value of the EXIF orientation tag (TIFF 6.0 section 2).

    No library is used: it would copy all data that a hostile directory refers to.
    """
    order = _BYTE_ORDERS.get(tiff[:4])
    if order is None:
        return None
    with suppress(struct.error):
        (directory,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, directory)
        for position in range(directory + 2, directory + 2 + 12 * count, 12):
            tag, kind, _, value = struct.unpack_from(f"{order}HHIH", tiff, position)
            if tag == _ORIENTATION:
                return int(value) if kind == _SHORT else None
    return None
