"""Finds and checks the only frame of a stored image, with the same code as the decoder."""

import mmap
from collections.abc import Iterator
from dataclasses import dataclass, replace

from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from api.dicom.web.headers import Original, read_header
from api.dicom.web.media_types import OCTETS
from shared.errors import UndecodablePixelData
from shared.imaging.cells import read_frame_layout, without_padding
from shared.imaging.codestream import bare_jpeg_2000
from shared.imaging.dicom_file import DicomFile, read_dicom
from shared.imaging.frames import inflate, read_frame
from shared.imaging.header import PREFIX_BYTES
from shared.imaging.rle_segments import check_runs, read_segments
from shared.imaging.stated_syntax import check_codestream, stated_syntax
from shared.imaging.transfer_syntaxes import PACKINGS, Packing
from shared.object_store import ObjectStore, original_key
from shared.processes.scratch import nameless_file

#: The media type of a frame, PS3.18 table 8.7.3-5, and the names that older clients use. Deflated pixel data have none.
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

_READ = ["Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"]
_CHUNK_BYTES = 256 * 1024
_END_OF_IMAGE = b"\xff\xd9"


@dataclass(frozen=True)
class Frame:
    """A frame as it is sent: native pixel data in little endian, or a codestream."""

    value: memoryview
    #: The actual transfer syntax of the bytes, which a file can state wrongly.
    transfer_syntax: str

    @property
    def media_types(self) -> tuple[str, ...]:
        """Return its media types, the standard name first."""
        return MEDIA_TYPES[PACKINGS[self.transfer_syntax]]

    def chunks(self) -> Iterator[bytes]:
        """Yield its bytes in chunks."""
        for start in range(0, len(self.value), _CHUNK_BYTES):
            yield bytes(self.value[start : start + _CHUNK_BYTES])


def fetch_frame(store: ObjectStore, original: Original, *, max_image_pixels: int, is_decoded: bool) -> Frame:
    """Return the frame of an original, whose bytes have been checked against their digest.

    `is_decoded` means that the detector's decoder has read the frame. Raises `UndecodablePixelData`, `MultiFrameImage`,
    `MalformedDicom`, `ObjectMissing`, `ObjectCorrupt` and `ObjectStoreUnavailable`.
    """
    file = read_header(store, original, _READ)
    if file.transfer_syntax_uid == DeflatedExplicitVRLittleEndian:
        data = store.get(original_key(original.sha256), sha256=original.sha256)
        file = read_dicom(data, max_bytes=PREFIX_BYTES + 4 * max_image_pixels, kept=_READ)
    else:
        file = replace(file, body=_fetch(store, original))
    return frame_of(file, is_decoded=is_decoded)


def frame_of(file: DicomFile, *, is_decoded: bool = False) -> Frame:
    """Return the frame of a complete file. Raises the same errors as `fetch_frame`."""
    frame = read_frame(file)
    syntax = file.transfer_syntax_uid
    match PACKINGS[syntax]:
        case Packing.NATIVE:
            return Frame(frame, ExplicitVRLittleEndian)
        case Packing.DEFLATED_FRAME:
            layout = read_frame_layout(file)
            without_padding(inflate(frame, layout.max_bytes), layout.frame_bytes, layout.row_bytes)
        case Packing.RLE:
            layout = read_frame_layout(file)
            for segment in read_segments(frame, layout.cell_bytes):
                check_runs(segment, layout.height_px * layout.width_px)
        case packing:
            return _codestream(bytes(frame), packing, file, is_decoded=is_decoded)
    return Frame(frame, syntax)


def _codestream(frame: bytes, packing: Packing, file: DicomFile, *, is_decoded: bool) -> Frame:
    if packing in (Packing.JPEG_2000, Packing.HTJ2K):
        frame = bare_jpeg_2000(frame)
    claimed = check_codestream(frame, packing, (file.integer("Rows") or 0, file.integer("Columns") or 0))
    if not claimed.ended:  # only the decoder can tell whether more than the end marker is missing
        if not is_decoded:
            raise UndecodablePixelData
        frame += _END_OF_IMAGE
    return Frame(memoryview(frame), stated_syntax(frame, file.transfer_syntax_uid))


def _fetch(store: ObjectStore, original: Original) -> memoryview:
    """Return the bytes of an original, mapped from an unnamed file because it can be large and slow to send."""
    with nameless_file() as file:
        for chunk in store.stream(original_key(original.sha256), sha256=original.sha256):
            file.write(chunk)
        file.flush()
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
