"""The one frame of a DICOM image: what the decoder reads, de-identification rewrites and DICOMweb answers."""

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
_HEAD_BYTES = 8  # of an item: its tag and its length
_OFFSET_BYTES = 4
#: More than any writer makes of one frame; each costs time, also where it is empty.
MOST_FRAGMENTS = 100_000


def read_frame(file: DicomFile) -> memoryview:
    """Native cells in little endian, exactly one frame of them; or one codestream (PS3.5 annex A.4).

    Whether pixel data is encapsulated, the transfer syntax says. Then its length should be undefined, but some writers
    state it. No table of offsets is believed, basic or extended: an image of one frame needs none. Raises
    `MultiFrameImage`, and `UndecodablePixelData` where the bytes are not all there, or not as the syntax says.
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
        value = swap_words(value)  # before the cut: the last one of an odd number of bytes lies in the second half
    return _one_frame(file, value)


def swap_words(value: memoryview) -> memoryview:
    """16-bit words in the other byte order; a last odd byte is left out."""
    return memoryview(np.frombuffer(value, "<u2", len(value) // 2).byteswap().tobytes())


def _one_frame(file: DicomFile, value: memoryview) -> memoryview:
    """The cells of one frame, without the padding behind them."""
    rows, columns, bits = (file.integer(keyword) or 0 for keyword in ("Rows", "Columns", "BitsAllocated"))
    if min(rows, columns, bits) < 1:
        raise UndecodablePixelData
    return without_padding(value, (rows * columns * bits + 7) // 8, columns * bits // 8)


def join_fragments(value: memoryview) -> memoryview:
    """The one frame of encapsulated pixel data.

    A frame may be cut into fragments anywhere, of any length, and of none. What comes after the last item is not
    looked at, so that a missing sequence delimiter does no harm: whether a frame is whole, its own end says. Several
    fragments that each open a codestream are several frames, whatever the header says; where none shows an opening
    (RLE, native cells, deflated ones, JPEG XL) several offsets are.
    """
    items = list(_read_items(value))
    if not items:
        raise UndecodablePixelData
    opened = [begins_codestream(bytes(item[:16])) for item in items]
    has_table = not opened[0]  # the standard wants it; a few writers left it out
    fragments = [item for item in items[has_table:] if len(item)]
    if sum(opened) > 1 or (has_table and not any(opened) and len(items[0]) >= 2 * _OFFSET_BYTES):
        raise MultiFrameImage
    if not fragments:
        raise UndecodablePixelData
    return fragments[0] if len(fragments) == 1 else memoryview(b"".join(fragments))


def _read_items(value: memoryview) -> Iterator[memoryview]:
    position = 0
    for _ in range(MOST_FRAGMENTS):
        head = value[position : position + _HEAD_BYTES]
        if len(head) < _HEAD_BYTES or head[: len(_ITEM)] != _ITEM:
            return
        (length,) = struct.unpack_from("<I", head, len(_ITEM))
        position += _HEAD_BYTES + length
        if position > len(value):
            raise UndecodablePixelData
        yield value[position - length : position]
    raise UndecodablePixelData


def inflate(frame: memoryview, most_bytes: int) -> memoryview:
    """A deflated frame's cells (PS3.5 8.2.16); raises `UndecodablePixelData` where they are more, or have no end."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        cells = inflater.decompress(frame, most_bytes)
    except zlib.error as exc:
        raise UndecodablePixelData from exc
    if not inflater.eof:
        raise UndecodablePixelData
    return memoryview(cells)
