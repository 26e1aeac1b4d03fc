"""Decode one image to its stored values. Only the decoder processes import this: native decoders can crash.

imagecodecs comes first, as it is 2–6 times as fast; pydicom with pylibjpeg is tried where it gives up.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from pydicom.encaps import generate_fragments, parse_basic_offsets
from pydicom.pixels.decoders.base import get_decoder

from shared.errors import ColourImage, MultiFrameImage, UndecodablePixelData
from shared.imaging.codestream import begins_codestream, ends_codestream, read_codestream_header
from shared.imaging.dicom_file import DicomFile, quietly, read_dicom
from shared.imaging.geometry import Geometry, read_geometry
from shared.imaging.grey_levels import GreyLevels, Pixels, full_range, read_grey_levels
from shared.imaging.header import (
    DICOM,
    PREFIX_BYTES,
    ImageHeader,
    describe_dicom,
    read_header,
    sniff_media_type,
)
from shared.imaging.transfer_syntaxes import PACKINGS, Packing

#: A picture whose channels differ by more than this at more than this share of its pixels is in colour; a marker or
#: JPEG noise in a grey film stays below.
COLOUR_LEVELS, COLOUR_SHARE = 16, 0.01

_DECODERS: dict[Packing, Callable[[bytes], Pixels]] = {
    Packing.JPEG: imagecodecs.jpeg_decode,
    Packing.JPEG_LS: imagecodecs.jpegls_decode,
    Packing.JPEG_2000: lambda data: imagecodecs.jpeg2k_decode(data, numthreads=1),
    Packing.HTJ2K: imagecodecs.htj2k_decode,
}


@dataclass(frozen=True)
class DecodedImage:
    """Stored values and what they mean."""

    pixels: Pixels  # [H, W]
    grey_levels: GreyLevels
    geometry: Geometry = field(default_factory=Geometry)


def decode(data: bytes, max_image_pixels: int) -> DecodedImage:
    """Decode a DICOM, PNG or JPEG file; the errors are those of `read_header`, and `UndecodablePixelData`."""
    return (decode_dicom if sniff_media_type(data) == DICOM else decode_picture)(data, max_image_pixels)


def decode_picture(data: bytes, max_image_pixels: int) -> DecodedImage:
    """Decode a PNG or JPEG; a JPEG is turned as its EXIF orientation says, alpha is dropped.

    8 bits are shown as they are, 16 bits are stretched as a DICOM image without a window is. Raises `ColourImage`.
    """
    read_header(data[:PREFIX_BYTES], len(data), max_image_pixels=max_image_pixels)
    with quietly(UndecodablePixelData):
        image: Image.Image = Image.open(BytesIO(data), formats=["PNG", "JPEG"])
        image.load()
        if image.format == "JPEG":
            image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        return DecodedImage(np.asarray(image).astype(np.uint16), GreyLevels())
    if image.mode not in ("1", "L", "LA"):
        image = image.convert("RGB")
        channels = np.asarray(image)  # [H, W, 3]
        coloured = np.ptp(channels, axis=2) > COLOUR_LEVELS
        if coloured.mean() > COLOUR_SHARE:
            raise ColourImage
    return DecodedImage(np.asarray(image.convert("L")), GreyLevels(voi=full_range(8)))


def decode_dicom(data: bytes, max_image_pixels: int) -> DecodedImage:
    """Decode a DICOM file; raises the errors of `read_header`, and `UndecodablePixelData`."""
    file = read_dicom(data, with_pixels=True, max_bytes=PREFIX_BYTES + 4 * max_image_pixels)
    header = describe_dicom(file, whole=True, max_image_pixels=max_image_pixels)
    layout = _read_layout(file, header)
    packing = PACKINGS[file.transfer_syntax_uid]
    with quietly(UndecodablePixelData):
        pixel_data: bytes = file.dataset.PixelData
        if packing is Packing.NATIVE:
            stored = _read_native(pixel_data, file, layout)
        else:
            stored = _read_frame(_join_fragments(pixel_data), packing, file, layout)
    return DecodedImage(stored, read_grey_levels(file), read_geometry(file))


@dataclass(frozen=True)
class _Layout:
    """How stored values lie in their cells, PS3.5 section 8.1."""

    height_px: int
    width_px: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool

    @property
    def frame_bytes(self) -> int:
        return self.height_px * self.width_px * self.bits_allocated // 8

    def extract(self, cells: Pixels) -> Pixels:
        """Cut the stored values out of unsigned cells [H × W]; overlays may live in the bits around them."""
        kind = np.dtype(np.uint8 if self.bits_allocated == 8 else np.uint16)
        cells = cells.reshape(self.height_px, self.width_px).astype(kind, copy=False)
        spare_low_bits = self.high_bit + 1 - self.bits_stored
        if spare_low_bits:
            cells = cells >> spare_low_bits
        if self.bits_stored < self.bits_allocated:
            cells = cells & ((1 << self.bits_stored) - 1)
        return sign_extend(cells, self.bits_stored) if self.signed else cells


def sign_extend(cells: Pixels, bits: int) -> NDArray[np.int16]:
    """Read the low `bits` of each cell as two's complement."""
    free = 16 - bits
    return np.asarray(cells.astype(np.uint16) << free).view(np.int16) >> free


def _read_layout(file: DicomFile, header: ImageHeader) -> _Layout:
    allocated = file.integer("BitsAllocated") or 0
    stored = file.integer("BitsStored") or allocated
    high_bit = file.integer("HighBit")
    high_bit = stored - 1 if high_bit is None else high_bit
    if allocated not in (8, 16) or not stored - 1 <= high_bit < allocated or stored < 1:
        raise UndecodablePixelData
    signed = file.integer("PixelRepresentation") == 1
    return _Layout(header.height_px, header.width_px, allocated, stored, high_bit, signed)


def _read_native(pixel_data: bytes, file: DicomFile, layout: _Layout) -> Pixels:
    # Writers pad to an even length and beyond; a whole spare row means that the sizes are wrong.
    spare = len(pixel_data) - layout.frame_bytes
    if not 0 <= spare < layout.frame_bytes // layout.height_px:
        raise UndecodablePixelData
    cell = np.dtype("u1" if layout.bits_allocated == 8 else "<u2" if file.little_endian else ">u2")
    if cell.itemsize == 1 and not file.little_endian and file.dataset["PixelData"].VR == "OW":
        pixel_data = np.frombuffer(pixel_data, "u2").byteswap().tobytes()  # 8-bit cells, swapped in pairs
    return layout.extract(np.frombuffer(pixel_data, cell, layout.height_px * layout.width_px))


def _join_fragments(pixel_data: bytes) -> bytes:
    """The one frame of encapsulated pixel data, PS3.5 section A.4."""
    if not pixel_data.startswith(b"\xfe\xff\x00\xe0"):
        raise UndecodablePixelData  # not encapsulated, though the transfer syntax says so
    fragments = list(generate_fragments(pixel_data))[1:]
    if len(parse_basic_offsets(pixel_data)) > 1 or sum(map(begins_codestream, fragments)) > 1:
        raise MultiFrameImage
    return b"".join(fragments)


def _read_frame(frame: bytes, packing: Packing, file: DicomFile, layout: _Layout) -> Pixels:
    if packing is Packing.RLE:
        cells = imagecodecs.dicomrle_decode(frame, f"<u{layout.bits_allocated // 8}", out=layout.frame_bytes)
        if len(cells) != layout.frame_bytes:
            raise UndecodablePixelData
        return layout.extract(np.frombuffer(cells, f"<u{layout.bits_allocated // 8}"))
    claimed = read_codestream_header(frame)
    shape = (layout.height_px, layout.width_px)
    if (claimed.height_px, claimed.width_px) != shape or claimed.components != 1 or claimed.bits > 16:
        raise UndecodablePixelData
    if not ends_codestream(frame):
        raise UndecodablePixelData
    try:
        values = _DECODERS[packing](frame)
    except RuntimeError:  # the base of every imagecodecs error
        # Named, as gdcm, which pydicom would try first where it is installed, aborts on some corrupt JPEG files.
        decoder = get_decoder(file.transfer_syntax_uid)
        values, _ = decoder.as_array(file.dataset, index=0, raw=True, decoding_plugin="pylibjpeg")
    if values.shape != shape or values.dtype.kind not in "iu" or values.itemsize > 2:
        raise UndecodablePixelData
    if layout.signed and values.dtype.kind == "u":
        return sign_extend(values, min(layout.bits_stored, claimed.bits))
    if not layout.signed and values.dtype.kind == "i":
        return values.astype(np.uint16) & ((1 << claimed.bits) - 1)
    return values.astype(np.int16) if values.dtype == np.int8 else values
