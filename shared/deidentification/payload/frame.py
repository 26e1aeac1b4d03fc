"""Removes all data that defines no pixels from the frame of a DICOM image, for each supported transfer syntax."""

import zlib
from typing import assert_never

from shared.deidentification.payload.cells import bare_cells
from shared.deidentification.payload.jpeg import bare_jpeg
from shared.deidentification.payload.jpeg_2000 import bare_codestream
from shared.deidentification.payload.jpeg_xl import bare_jpeg_xl
from shared.deidentification.payload.rle import bare_rle
from shared.imaging.cells import read_frame_layout
from shared.imaging.dicom_file import DicomFile
from shared.imaging.frames import inflate, read_frame
from shared.imaging.kind import check_kind
from shared.imaging.transfer_syntaxes import PACKINGS, Packing


def bare_frame(file: DicomFile) -> bytes:
    """Return the cleaned frame: little-endian native cells, or a codestream that is not yet encapsulated.

    Fragments, offset tables and data after them are removed. Raises `UndecodablePixelData`, `MultiFrameImage`,
    `ColourImage` and `UnsupportedTransferSyntax`.
    """
    check_kind(file)
    frame = read_frame(file)
    packing = PACKINGS[file.transfer_syntax_uid]
    match packing:
        case Packing.NATIVE:
            return bare_cells(frame, read_frame_layout(file))
        case Packing.DEFLATED_FRAME:
            layout = read_frame_layout(file)
            cells = bare_cells(inflate(frame, layout.max_bytes), layout)
            deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
            return deflater.compress(cells[: layout.frame_bytes]) + deflater.flush()
        case Packing.RLE:
            return bare_rle(frame, read_frame_layout(file))
        case Packing.JPEG | Packing.JPEG_LS:
            return bare_jpeg(bytes(frame))
        case Packing.JPEG_2000 | Packing.HTJ2K:
            return bare_codestream(bytes(frame))
        case Packing.JPEG_XL:
            return bare_jpeg_xl(bytes(frame))
        case _:
            assert_never(packing)
