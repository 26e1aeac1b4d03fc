"""Extracts the single frame of a DICOM image for decoding, de-identification and DICOMweb."""

import struct
import zlib
from collections.abc import Iterator

import numpy as np

from shared.errors import MultiFrameImage, UndecodablePixelData
from shared.imaging.cells import without_padding
from shared.imaging.codestream import begins_codestream
from shared.imaging.dicom_file import DicomFile
from shared.imaging.transfer_syntaxes import ENCAPSULATED, PACKINGS, Packing

_ITEM = b"\xfe\xff\x00\xe0"
_HEAD_BYTES = 8  # the tag and the length of an item
_OFFSET_BYTES = 4
#: More than any writer creates for one frame. Even an empty fragment costs time.
MAX_FRAGMENTS = 100_000


def read_frame(file: DicomFile) -> memoryview:
    """Return exactly one frame of native cells in little endian, or one codestream (PS3.5 annex A.4).

    The transfer syntax determines whether pixel data is encapsulated. The length should then be undefined, but some
    writers state one. Basic and extended offset tables are ignored: an image of one frame needs none. Raises
    `MultiFrameImage`, and `UndecodablePixelData` if bytes are missing or do not match the transfer syntax.
    """
    place = file.pixel_data
    if place is None:
        raise UndecodablePixelData
    value = memoryview(file.body)[place.start :][: place.byte_count]
    if file.transfer_syntax_uid in ENCAPSULATED:
        frame = join_fragments(value)
        return _one_frame(file, frame) if PACKINGS[file.transfer_syntax_uid] is Packing.NATIVE else frame
    if place.byte_count is None or len(value) < place.byte_count:
        raise UndecodablePixelData
    if not file.little_endian and (place.vr == "OW" or file.integer("BitsAllocated") == 16):
        value = swap_words(value)  # before padding is removed: the last of an odd number of bytes is in the second half
    return _one_frame(file, value)


def swap_words(value: memoryview) -> memoryview:
    """Return 16-bit words in the other byte order, without an odd byte at the end."""
    return memoryview(np.frombuffer(value, "<u2", len(value) // 2).byteswap().tobytes())


def _one_frame(file: DicomFile, value: memoryview) -> memoryview:
    """Return the cells of one frame, without the padding after them."""
    rows, columns, bits = (file.integer(keyword) or 0 for keyword in ("Rows", "Columns", "BitsAllocated"))
    if min(rows, columns, bits) < 1:
        raise UndecodablePixelData
    return without_padding(value, (rows * columns * bits + 7) // 8, columns * bits // 8)


def join_fragments(value: memoryview) -> memoryview:
    """Return the single frame of encapsulated pixel data.

    A frame can be split into fragments anywhere; fragments can be empty. Bytes after the last item are ignored, so a
    missing sequence delimiter is tolerated: the end of the codestream shows that the frame is complete.

    Raises `MultiFrameImage` if several fragments start a codestream, whatever the header states. If no start can be
    recognised (RLE, native cells, deflated cells, JPEG XL), several offsets in the table mean several frames. Raises
    `UndecodablePixelData` if there are no fragments.
    """
    items = list(_read_items(value))
    if not items:
        raise UndecodablePixelData
    opened = [begins_codestream(bytes(item[:16])) for item in items]
    has_table = not opened[0]  # the standard requires it, but a few writers omit it
    fragments = [item for item in items[has_table:] if len(item)]
    if sum(opened) > 1 or (has_table and not any(opened) and len(items[0]) >= 2 * _OFFSET_BYTES):
        raise MultiFrameImage
    if not fragments:
        raise UndecodablePixelData
    return fragments[0] if len(fragments) == 1 else memoryview(b"".join(fragments))


def _read_items(value: memoryview) -> Iterator[memoryview]:
    position = 0
    for _ in range(MAX_FRAGMENTS):
        head = value[position : position + _HEAD_BYTES]
        if len(head) < _HEAD_BYTES or head[: len(_ITEM)] != _ITEM:
            return
        (length,) = struct.unpack_from("<I", head, len(_ITEM))
        position += _HEAD_BYTES + length
        if position > len(value):
            raise UndecodablePixelData
        yield value[position - length : position]
    raise UndecodablePixelData


def inflate(frame: memoryview, max_bytes: int) -> memoryview:
    """Return a deflated frame's cells (PS3.5 8.2.16); raises `UndecodablePixelData` if too long or cut off."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        cells = inflater.decompress(frame, max_bytes)
    except zlib.error as exc:
        raise UndecodablePixelData from exc
    if not inflater.eof:
        raise UndecodablePixelData
    return memoryview(cells)
