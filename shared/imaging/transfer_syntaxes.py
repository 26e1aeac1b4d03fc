"""The DICOM transfer syntaxes that Carina decodes, and how each packs its pixels (PS3.5 annex A).

What is missing is refused by its UID. Video and what is only referred to (JPIP) are no still image in the file. JPEG's
hierarchical processes and its lossless one with arithmetic coding (`.58` to `.66`, all retired) have no decoder here
that could be shown to be right, for nothing at hand writes them.
"""

from enum import Enum

from pydicom import uid
from pydicom._uid_dict import UID_dictionary

ENCAPSULATED_NATIVE = uid.UID("1.2.840.10008.1.2.1.98")
DEFLATED_FRAME = uid.UID("1.2.840.10008.1.2.8.1")
JPEG_XL_LOSSLESS = uid.UID("1.2.840.10008.1.2.4.110")
JPEG_XL_RECOMPRESSION = uid.UID("1.2.840.10008.1.2.4.111")
JPEG_XL = uid.UID("1.2.840.10008.1.2.4.112")

# Younger than the dictionary of the oldest pydicom that is supported, which writes no file in a syntax that it lacks.
for _syntax, _name, _keyword in (
    (DEFLATED_FRAME, "Deflated Image Frame Compression", "DeflatedImageFrameCompression"),
    (JPEG_XL_LOSSLESS, "JPEG XL Lossless", "JPEGXLLossless"),
    (JPEG_XL_RECOMPRESSION, "JPEG XL JPEG Recompression", "JPEGXLJPEGRecompression"),
    (JPEG_XL, "JPEG XL", "JPEGXL"),
):
    UID_dictionary.setdefault(_syntax, (_name, "Transfer Syntax", "", "", _keyword))


class Packing(Enum):
    """How the pixel data of a transfer syntax is packed."""

    #: As cells, with or without fragments around them.
    NATIVE = "native"
    #: Cells that are deflated apart from the rest of the file.
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
    # Retired in 2006, yet in archives: arithmetic coding, spectral selection and full progression.
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
    # Part 2 tells of components that are transformed together; a grey image has one, which part 1 decodes.
    uid.JPEG2000MCLossless: Packing.JPEG_2000,
    uid.JPEG2000MC: Packing.JPEG_2000,
    uid.HTJ2KLossless: Packing.HTJ2K,
    uid.HTJ2KLosslessRPCL: Packing.HTJ2K,
    uid.HTJ2K: Packing.HTJ2K,
    JPEG_XL_LOSSLESS: Packing.JPEG_XL,
    JPEG_XL_RECOMPRESSION: Packing.JPEG_XL,
    JPEG_XL: Packing.JPEG_XL,
}

#: Packings of cells; a codestream has its own depth and no bits around the stored ones.
IN_CELLS = {Packing.NATIVE, Packing.DEFLATED_FRAME, Packing.RLE}

#: Those whose pixel data comes in fragments (PS3.5 A.4).
ENCAPSULATED = {syntax for syntax, packing in PACKINGS.items() if packing is not Packing.NATIVE} | {ENCAPSULATED_NATIVE}
