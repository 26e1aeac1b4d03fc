"""Decodes one image to its stored values. Only decoder processes import this module: native decoders can crash."""

from dataclasses import dataclass, field, replace

from shared.errors import UndecodablePixelData
from shared.imaging.cells import CellLayout, read_cells, read_layout, sign_extend
from shared.imaging.codecs import decode_codestream
from shared.imaging.dicom_file import DicomFile, quietly, read_dicom
from shared.imaging.frames import inflate, read_frame
from shared.imaging.geometry import Geometry, read_geometry
from shared.imaging.grey_levels import GreyLevels, Pixels, full_range, read_grey_levels
from shared.imaging.header import DICOM, PREFIX_BYTES, describe_dicom, sniff_media_type
from shared.imaging.pictures import decode_picture
from shared.imaging.rle import unpack_rle
from shared.imaging.tagged_view import read_tag_flags
from shared.imaging.transfer_syntaxes import PACKINGS, Packing
from shared.vocabulary.flags import Flag


@dataclass(frozen=True)
class DecodedImage:
    """Stored values and how to interpret them."""

    pixels: Pixels  # [H, W]
    grey_levels: GreyLevels
    geometry: Geometry = field(default_factory=Geometry)
    #: Flags from the header: why this may not be a frontal chest radiograph, and whether the file is irregular.
    tag_flags: tuple[Flag, ...] = ()


def decode(data: bytes, max_image_pixels: int, threads: int = 1) -> DecodedImage:
    """Decode a DICOM, PNG or JPEG file; raises the errors of `read_header`, and `UndecodablePixelData`.

    `threads` threads decode one image together if its format allows it: JPEG 2000 and JPEG XL.
    """
    if sniff_media_type(data) == DICOM:
        return decode_dicom(data, max_image_pixels, threads)
    pixels = decode_picture(data, max_image_pixels)
    # 8-bit values are shown unchanged. 16-bit values are stretched like a DICOM image without a window.
    return DecodedImage(pixels, GreyLevels(voi=full_range(8) if pixels.itemsize == 1 else None))


def decode_dicom(data: bytes, max_image_pixels: int, threads: int = 1) -> DecodedImage:
    """Decode a DICOM file; raises the errors of `read_header`, and `UndecodablePixelData`."""
    file = read_dicom(data, max_bytes=PREFIX_BYTES + 4 * max_image_pixels)
    header = describe_dicom(file, whole=True, max_image_pixels=max_image_pixels)
    with quietly(UndecodablePixelData):
        layout = read_layout(file, header.height_px, header.width_px)
        pixels = _read_pixels(file, layout, threads)
    grey_levels, geometry, flags = read_grey_levels(file), read_geometry(file), read_tag_flags(file)
    remarks = file.remarks  # read last, when all remarks have been added
    if remarks.irregular:
        flags = (*flags, Flag.IRREGULAR_FILE)
    grey_levels = replace(grey_levels, remarks=(*grey_levels.remarks, *remarks.words))
    return DecodedImage(pixels, grey_levels, geometry, flags)


def _read_pixels(file: DicomFile, layout: CellLayout, threads: int) -> Pixels:
    packing = PACKINGS[file.transfer_syntax_uid]
    frame = read_frame(file)
    if packing is Packing.NATIVE:
        return read_cells(frame, layout)
    if packing is Packing.DEFLATED_FRAME:
        return read_cells(inflate(frame, layout.max_bytes), layout)
    if packing is Packing.RLE:
        return read_cells(unpack_rle(bytes(frame), layout), layout)
    return _read_codestream(file, bytes(frame), layout, threads)


def _read_codestream(file: DicomFile, frame: bytes, layout: CellLayout, threads: int) -> Pixels:
    """Return the values of a codestream; the codestream, not the DICOM header, states their bit depth (PS3.5 8.2).

    Only the DICOM header states whether values are signed: several formats cannot, and if a codestream disagrees, its
    writer misread the cells. The bits are then kept and reinterpreted. Signed values are two's complement in the
    codestream's bit depth, or in BitsStored if that is lower.
    """
    packing = PACKINGS[file.transfer_syntax_uid]
    values, claimed = decode_codestream(frame, packing, (layout.height_px, layout.width_px), threads)
    if not claimed.ended:
        file.remarks.mend("the compressed stream lacks its end marker, and nothing else")
    if layout.signed and values.dtype.kind == "u":
        return sign_extend(values, min(layout.bits_stored, claimed.bits))
    if not layout.signed and values.dtype.kind == "i":
        return values.astype("u2") & ((1 << claimed.bits) - 1)
    return values.astype("i2") if values.dtype == "i1" else values
