"""The DICOM transfer syntaxes that Carina decodes, and the packing of each one's pixels (PS3.5 annex A).

All other transfer syntaxes are rejected. Video and JPIP, which only refers to pixels, are not still images in the file.
Hierarchical JPEG and lossless JPEG with arithmetic coding (`.58` to `.66`, all retired) are not decoded, because no
encoder is available to test a decoder.
"""

from enum import Enum

from pydicom import uid
from pydicom._uid_dict import UID_dictionary

ENCAPSULATED_NATIVE = uid.UID("1.2.840.10008.1.2.1.98")
DEFLATED_FRAME = uid.UID("1.2.840.10008.1.2.8.1")
JPEG_XL_LOSSLESS = uid.UID("1.2.840.10008.1.2.4.110")
JPEG_XL_RECOMPRESSION = uid.UID("1.2.840.10008.1.2.4.111")
JPEG_XL = uid.UID("1.2.840.10008.1.2.4.112")

# Missing in the dictionary of the oldest supported pydicom, which cannot write files in unknown syntaxes.
for _syntax, _name, _keyword in (
    (DEFLATED_FRAME, "Deflated Image Frame Compression", "DeflatedImageFrameCompression"),
    (JPEG_XL_LOSSLESS, "JPEG XL Lossless", "JPEGXLLossless"),
    (JPEG_XL_RECOMPRESSION, "JPEG XL JPEG Recompression", "JPEGXLJPEGRecompression"),
    (JPEG_XL, "JPEG XL", "JPEGXL"),
):
    UID_dictionary.setdefault(_syntax, (_name, "Transfer Syntax", "", "", _keyword))


class Packing(Enum):
    """The packing of the pixel data of a transfer syntax."""

    #: Cells, with or without fragments around them.
    NATIVE = "native"
    #: Cells that are deflated separately from the rest of the file.
    DEFLATED_FRAME = "deflated_frame"
    RLE = "rle"
    JPEG = "jpeg"
    JPEG_LS = "jpeg_ls"
    JPEG_2000 = "jpeg_2000"
    HTJ2K = "htj2k"
    JPEG_XL = "jpeg_xl"


PACKINGS: dict[str, Packing] = {
    uid.ImplicitVRLittleEndian: Packing.NATIVE,
    uid.ExplicitVRLittleEndian: Packing.NATIVE,
    uid.ExplicitVRBigEndian: Packing.NATIVE,
    uid.DeflatedExplicitVRLittleEndian: Packing.NATIVE,
    ENCAPSULATED_NATIVE: Packing.NATIVE,
    DEFLATED_FRAME: Packing.DEFLATED_FRAME,
    uid.RLELossless: Packing.RLE,
    uid.JPEGBaseline8Bit: Packing.JPEG,
    uid.JPEGExtended12Bit: Packing.JPEG,
    # Retired in 2006 but still in archives: arithmetic coding, spectral selection and full progression.
    uid.UID("1.2.840.10008.1.2.4.52"): Packing.JPEG,
    uid.UID("1.2.840.10008.1.2.4.53"): Packing.JPEG,
    uid.UID("1.2.840.10008.1.2.4.54"): Packing.JPEG,
    uid.UID("1.2.840.10008.1.2.4.55"): Packing.JPEG,
    uid.UID("1.2.840.10008.1.2.4.56"): Packing.JPEG,
    uid.JPEGLossless: Packing.JPEG,
    uid.JPEGLosslessSV1: Packing.JPEG,
    uid.JPEGLSLossless: Packing.JPEG_LS,
    uid.JPEGLSNearLossless: Packing.JPEG_LS,
    uid.JPEG2000Lossless: Packing.JPEG_2000,
    uid.JPEG2000: Packing.JPEG_2000,
    # Part 2 adds transforms across components. A grey image has one component, so a part 1 decoder decodes it.
    uid.JPEG2000MCLossless: Packing.JPEG_2000,
    uid.JPEG2000MC: Packing.JPEG_2000,
    uid.HTJ2KLossless: Packing.HTJ2K,
    uid.HTJ2KLosslessRPCL: Packing.HTJ2K,
    uid.HTJ2K: Packing.HTJ2K,
    JPEG_XL_LOSSLESS: Packing.JPEG_XL,
    JPEG_XL_RECOMPRESSION: Packing.JPEG_XL,
    JPEG_XL: Packing.JPEG_XL,
}

#: Packings of cells. All others are codestreams, which have their own bit depth and no bits around the stored ones.
IN_CELLS = {Packing.NATIVE, Packing.DEFLATED_FRAME, Packing.RLE}

#: Transfer syntaxes with pixel data in fragments (PS3.5 A.4).
ENCAPSULATED = {syntax for syntax, packing in PACKINGS.items() if packing is not Packing.NATIVE} | {ENCAPSULATED_NATIVE}
