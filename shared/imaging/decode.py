"""Decode one image to its stored values. Only the decoder processes import this: native decoders can crash."""

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
    """Stored values and what they mean."""

    pixels: Pixels  # [H, W]
    grey_levels: GreyLevels
    geometry: Geometry = field(default_factory=Geometry)
    #: What the header says against a frontal chest radiograph, and whether it is read as the standard has it.
    tag_flags: tuple[Flag, ...] = ()


def decode(data: bytes, max_image_pixels: int, threads: int = 1) -> DecodedImage:
    """Decode a DICOM, PNG or JPEG file; the errors are those of `read_header`, and `UndecodablePixelData`.

    `threads` share the work within one image where its format lets them: JPEG 2000 and JPEG XL.
    """
    if sniff_media_type(data) == DICOM:
        return decode_dicom(data, max_image_pixels, threads)
    pixels = decode_picture(data, max_image_pixels)
    # 8 bits are shown as they are, more are stretched as those of a DICOM image without a window.
    return DecodedImage(pixels, GreyLevels(voi=full_range(8) if pixels.itemsize == 1 else None))


def decode_dicom(data: bytes, max_image_pixels: int, threads: int = 1) -> DecodedImage:
    """Decode a DICOM file; raises the errors of `read_header`, and `UndecodablePixelData`."""
    file = read_dicom(data, max_bytes=PREFIX_BYTES + 4 * max_image_pixels)
    header = describe_dicom(file, whole=True, max_image_pixels=max_image_pixels)
    with quietly(UndecodablePixelData):
        layout = read_layout(file, header.height_px, header.width_px)
        pixels = _read_pixels(file, layout, threads)
    grey_levels, geometry, flags = read_grey_levels(file), read_geometry(file), read_tag_flags(file)
    remarks = file.remarks  # of all that has been read by now
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
        return read_cells(inflate(frame, layout.most_bytes), layout)
    if packing is Packing.RLE:
        return read_cells(unpack_rle(bytes(frame), layout), layout)
    return _read_codestream(file, bytes(frame), layout, threads)


def _read_codestream(file: DicomFile, frame: bytes, layout: CellLayout, threads: int) -> Pixels:
    """The values of a codestream, which are as many bits wide as it says, not as the header says (PS3.5 8.2).

    The header alone says whether they are signed: several formats cannot, and where one can and differs, its writer
    took the cells' bits for the other kind. Their bits count, and the header reads them: as two's complement of the
    codestream's bits or, where those are more, of the stored ones.
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
