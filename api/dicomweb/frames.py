"""The one frame of a stored image, cut out of its file as it streams by, PS3.5 annex A."""

import struct
import zlib
from collections.abc import Iterator

from pydicom import uid

from api.dicomweb.media_types import OCTETS
from shared.errors import NotFound, UndecodablePixelData
from shared.imaging.dicom_file import DicomFile
from shared.imaging.transfer_syntaxes import PACKINGS, Packing

#: The media type of a frame, PS3.18 table 8.7.3-5, and the names that older clients use. Deflated cells have none.
MEDIA_TYPES = {
    Packing.NATIVE: (OCTETS,),
    Packing.DEFLATED_FRAME: (OCTETS,),
    Packing.RLE: ("image/dicom-rle", "image/x-dicom-rle"),
    Packing.JPEG: ("image/jpeg",),
    Packing.JPEG_LS: ("image/jls", "image/x-jls"),
    Packing.JPEG_2000: ("image/jp2",),
    Packing.HTJ2K: ("image/jphc",),
    Packing.JPEG_XL: ("image/jxl",),
}

#: What of a header tells where a frame lies.
FRAME = ["Rows", "Columns", "BitsAllocated"]

_MOST_INFLATED_BYTES = 1024**2
_ITEM, _END = 0xFFFEE000, 0xFFFEE0DD


def media_types(transfer_syntax: str) -> tuple[str, ...]:
    """Return what a frame in this transfer syntax is, by its right name first."""
    return MEDIA_TYPES[PACKINGS[transfer_syntax]]


def read_frame(file: DicomFile, chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the frame of a file whose header is read: native values as little endian, or the compressed codestream.

    Reads `chunks`, the whole file, to their end, where they are known to be right. Raises `UndecodablePixelData`.
    """
    if file.pixel_data is None:
        raise NotFound("The instance has no pixel data.")
    reader = _Reader(_inflated(file, chunks))
    reader.skip(file.pixel_data.start)
    if file.pixel_data.byte_count is None:
        yield from _fragments(reader)
    else:
        native = reader.take(min(file.pixel_data.byte_count, _frame_bytes(file)))
        yield from _swapped(native) if not file.little_endian and file.pixel_data.vr == "OW" else native
    for _ in reader.rest():
        pass


def _frame_bytes(file: DicomFile) -> int:
    """How long a native frame is, without the byte that pads it to an even length."""
    sizes = (file.integer("Rows"), file.integer("Columns"), file.integer("BitsAllocated"))
    rows, columns, bits = (size or 0 for size in sizes)
    return (rows * columns * bits + 7) // 8


def _inflated(file: DicomFile, chunks: Iterator[bytes]) -> Iterator[bytes]:
    if file.transfer_syntax_uid != uid.DeflatedExplicitVRLittleEndian:
        yield from chunks
        return
    reader, inflater = _Reader(chunks), zlib.decompressobj(-zlib.MAX_WBITS)
    reader.skip(file.start)
    for chunk in reader.rest():
        yield from _pieces(inflater, chunk)


def _pieces(inflater: "zlib._Decompress", chunk: bytes) -> Iterator[bytes]:
    """Yield what a chunk inflates to, a bounded piece at a time."""
    while chunk:
        try:
            piece = inflater.decompress(chunk, _MOST_INFLATED_BYTES)
        except zlib.error as exc:
            raise UndecodablePixelData from exc
        if piece:
            yield piece
        chunk = inflater.unconsumed_tail


def _fragments(reader: "_Reader") -> Iterator[bytes]:
    """Yield the fragments of encapsulated pixel data; those of one frame belong together."""
    is_table = True
    while True:
        group, element, byte_count = struct.unpack("<HHL", reader.read(8))
        tag = group << 16 | element
        if tag == _END:
            return
        if tag != _ITEM:
            raise UndecodablePixelData
        if is_table:
            reader.skip(byte_count)
        else:
            yield from reader.take(byte_count)
        is_table = False


def _swapped(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Turn 16-bit words from big to little endian."""
    odd = b""
    for chunk in chunks:
        data = bytearray(odd + chunk)
        odd = bytes(data[len(data) & ~1 :])
        del data[len(data) & ~1 :]
        data[0::2], data[1::2] = data[1::2], data[0::2]
        yield bytes(data)


class _Reader:
    """Chunks, read by numbers of bytes."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._held = memoryview(b"")  # to cut bytes would copy what is left of a chunk, once for each item in it

    def take(self, byte_count: int) -> Iterator[bytes]:
        """Yield the next so many bytes; raise `UndecodablePixelData` where there are fewer."""
        while byte_count > 0:
            chunk = self._held or memoryview(next(self._chunks, b""))
            if not chunk:
                raise UndecodablePixelData
            taken, self._held = chunk[:byte_count], chunk[byte_count:]
            byte_count -= len(taken)
            yield bytes(taken)

    def read(self, byte_count: int) -> bytes:
        """Return the next so many bytes."""
        return b"".join(self.take(byte_count))

    def skip(self, byte_count: int) -> None:
        """Leave out the next so many bytes."""
        for _ in self.take(byte_count):
            pass

    def rest(self) -> Iterator[bytes]:
        """Yield what is left."""
        yield bytes(self._held)
        yield from self._chunks
