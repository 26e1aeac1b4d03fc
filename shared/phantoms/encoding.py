"""Encodes pixel values in each transfer syntax for which an encoder is available (PS3.5 annex A)."""

import zlib
from collections.abc import Callable
from typing import Any, Literal, get_args

import imagecodecs
import numpy as np
import rle.utils
from numpy.typing import NDArray
from pydicom import uid

from shared.imaging.transfer_syntaxes import (
    DEFLATED_FRAME,
    ENCAPSULATED_NATIVE,
    JPEG_XL,
    JPEG_XL_LOSSLESS,
    JPEG_XL_RECOMPRESSION,
)

Values = NDArray[np.integer[Any]]  # uint8, uint16 or int16
_Encoder = Callable[[Values, int], bytes | bytearray]
Native = Literal["explicit", "implicit", "big-endian", "deflated"]
Lossless = Literal[
    "encapsulated",
    "deflated-frame",
    "rle",
    "jpeg-lossless",
    "jpeg-lossless-sv4",
    "jpeg-ls",
    "jpeg-2000",
    "jpeg-2000-part-2",
    "htj2k",
    "htj2k-rpcl",
    "jpeg-xl",
]
Lossy = Literal[
    "jpeg-baseline",
    "jpeg-extended",
    "jpeg-ls-near",
    "jpeg-2000-lossy",
    "htj2k-lossy",
    "jpeg-xl-lossy",
    "jpeg-xl-recompression",
]
TransferSyntax = Native | Lossless | Lossy

NATIVE: tuple[Native, ...] = get_args(Native)
LOSSLESS: tuple[Lossless, ...] = get_args(Lossless)
LOSSY: tuple[Lossy, ...] = get_args(Lossy)
UIDS: dict[TransferSyntax, uid.UID] = {
    "explicit": uid.ExplicitVRLittleEndian,
    "implicit": uid.ImplicitVRLittleEndian,
    "big-endian": uid.ExplicitVRBigEndian,
    "deflated": uid.DeflatedExplicitVRLittleEndian,
    "encapsulated": ENCAPSULATED_NATIVE,
    "deflated-frame": DEFLATED_FRAME,
    "rle": uid.RLELossless,
    "jpeg-lossless": uid.JPEGLosslessSV1,
    "jpeg-lossless-sv4": uid.JPEGLossless,
    "jpeg-ls": uid.JPEGLSLossless,
    "jpeg-2000": uid.JPEG2000Lossless,
    "jpeg-2000-part-2": uid.JPEG2000MCLossless,
    "htj2k": uid.HTJ2KLossless,
    "htj2k-rpcl": uid.HTJ2KLosslessRPCL,
    "jpeg-xl": JPEG_XL_LOSSLESS,
    "jpeg-baseline": uid.JPEGBaseline8Bit,
    "jpeg-extended": uid.JPEGExtended12Bit,
    "jpeg-ls-near": uid.JPEGLSNearLossless,
    "jpeg-2000-lossy": uid.JPEG2000,
    "htj2k-lossy": uid.HTJ2K,
    "jpeg-xl-lossy": JPEG_XL,
    "jpeg-xl-recompression": JPEG_XL_RECOMPRESSION,
}

#: Maximum error of a value in near-lossless JPEG-LS.
NEAR = 3
_RSIZ = slice(6, 8)  # the capabilities that a JPEG 2000 codestream requires, ISO/IEC 15444-1 A.5.1
_PART_2 = b"\x80\x00"


def native_bytes(values: Values, *, big_endian: bool = False) -> bytes:
    """Return cells in the given byte order, padded to an even length."""
    raw = values.astype(values.dtype.newbyteorder(">" if big_endian else "<")).tobytes()
    return raw + b"\0" * (len(raw) % 2)


def encode_frame(values: Values, bits: int, transfer_syntax: TransferSyntax) -> bytes:
    """Encode `values` [H, W] of `bits` bits as one frame of an encapsulated syntax, without fragments around it.

    JPEG Baseline and JPEG XL recompression need 8 bits, JPEG Extended at most 12. Formats without a sign encode the
    bits of signed values as unsigned values.
    """
    if values.dtype.kind == "i" and transfer_syntax not in _SIGNED:
        values = values.view(f"u{values.itemsize}") & ((1 << bits) - 1)
    return bytes(_ENCODERS[transfer_syntax](values, bits))


def _rle(values: Values, _bits: int) -> bytes:
    rows, columns = values.shape
    # By default, pydicom uses GDCM if it is installed, whose RLE encoder can abort the process.
    return rle.utils.encode_pixel_data(
        native_bytes(values)[: values.nbytes],
        byteorder="<",
        rows=rows,
        columns=columns,
        samples_per_pixel=1,
        bits_allocated=8 * values.itemsize,
    )


def _deflated(values: Values, _bits: int) -> bytes:
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return deflater.compress(native_bytes(values)) + deflater.flush()


def _jpeg_lossless(selection_value: int) -> _Encoder:
    return lambda values, bits: imagecodecs.jpeg_encode(
        values, lossless=True, predictor=selection_value, bitspersample=bits
    )


def _jpeg_2000(values: Values, bits: int) -> bytes | bytearray:
    return imagecodecs.jpeg2k_encode(values, level=0, codecformat="j2k", reversible=True, bitspersample=bits)


def _jpeg_2000_part_2(values: Values, bits: int) -> bytes | bytearray:
    frame = bytearray(_jpeg_2000(values, bits))
    frame[_RSIZ] = _PART_2
    return frame


def _jpeg_2000_lossy(values: Values, bits: int) -> bytes | bytearray:
    return imagecodecs.jpeg2k_encode(values, level=60, codecformat="j2k", reversible=False, bitspersample=bits)


_SIGNED = ("encapsulated", "deflated-frame", "rle", "jpeg-2000", "jpeg-2000-part-2", "jpeg-2000-lossy", "htj2k",
           "htj2k-rpcl", "htj2k-lossy")  # fmt: skip
_ENCODERS: dict[TransferSyntax, _Encoder] = {
    "encapsulated": lambda values, _: native_bytes(values),
    "deflated-frame": _deflated,
    "rle": _rle,
    "jpeg-lossless": _jpeg_lossless(1),
    "jpeg-lossless-sv4": _jpeg_lossless(4),
    "jpeg-ls": lambda values, _: imagecodecs.jpegls_encode(values),
    "jpeg-2000": _jpeg_2000,
    "jpeg-2000-part-2": _jpeg_2000_part_2,
    "htj2k": lambda values, _: imagecodecs.htj2k_encode(values, reversible=True),
    "htj2k-rpcl": lambda values, _: imagecodecs.htj2k_encode(values, reversible=True, tlm=True),
    "jpeg-xl": lambda values, bits: imagecodecs.jpegxl_encode(values, lossless=True, bitspersample=bits),
    "jpeg-baseline": lambda values, _: imagecodecs.jpeg_encode(values, level=90),
    "jpeg-extended": lambda values, bits: imagecodecs.jpeg_encode(values, level=90, bitspersample=max(bits, 8)),
    "jpeg-ls-near": lambda values, _: imagecodecs.jpegls_encode(values, level=NEAR),
    "jpeg-2000-lossy": _jpeg_2000_lossy,
    "htj2k-lossy": lambda values, _: imagecodecs.htj2k_encode(values, level=0.001, reversible=False),
    "jpeg-xl-lossy": lambda values, bits: imagecodecs.jpegxl_encode(values, distance=0.5, bitspersample=bits),
    "jpeg-xl-recompression": lambda values, _: imagecodecs.jpegxl_encode_jpeg(
        bytes(imagecodecs.jpeg_encode(values, level=90))
    ),
}
