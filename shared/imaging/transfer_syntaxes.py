"""The DICOM transfer syntaxes that Carina decodes, and how each packs its pixels (PS3.5 annex A)."""

from enum import Enum

from pydicom import uid


class Packing(Enum):
    """How the pixel data of a transfer syntax is packed."""

    NATIVE = "native"
    RLE = "rle"
    JPEG = "jpeg"
    JPEG_LS = "jpeg_ls"
    JPEG_2000 = "jpeg_2000"
    HTJ2K = "htj2k"


PACKINGS: dict[str, Packing] = {
    uid.ImplicitVRLittleEndian: Packing.NATIVE,
    uid.ExplicitVRLittleEndian: Packing.NATIVE,
    uid.ExplicitVRBigEndian: Packing.NATIVE,
    uid.DeflatedExplicitVRLittleEndian: Packing.NATIVE,
    uid.RLELossless: Packing.RLE,
    uid.JPEGBaseline8Bit: Packing.JPEG,
    uid.JPEGExtended12Bit: Packing.JPEG,
    uid.JPEGLossless: Packing.JPEG,
    uid.JPEGLosslessSV1: Packing.JPEG,
    uid.JPEGLSLossless: Packing.JPEG_LS,
    uid.JPEGLSNearLossless: Packing.JPEG_LS,
    uid.JPEG2000Lossless: Packing.JPEG_2000,
    uid.JPEG2000: Packing.JPEG_2000,
    uid.HTJ2KLossless: Packing.HTJ2K,
    uid.HTJ2KLosslessRPCL: Packing.HTJ2K,
    uid.HTJ2K: Packing.HTJ2K,
}
