"""The decoders of compressed frames. The frame's own header is checked before a decoder is called.

imagecodecs is tried first: it is 2–6 times as fast as pylibjpeg and releases the GIL. If it fails, pylibjpeg is tried,
except for JPEG-LS: there, pylibjpeg returns pixels even for a damaged frame.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import imagecodecs
import libjpeg.utils
import numpy as np
import openjpeg.utils

from shared.errors import UndecodablePixelData
from shared.imaging.codestream import CodestreamHeader, bare_jpeg_2000
from shared.imaging.grey_levels import Pixels
from shared.imaging.jpeg_2000_work import check_work
from shared.imaging.missing_end import decode_without_end
from shared.imaging.stated_syntax import check_codestream
from shared.imaging.transfer_syntaxes import Packing

_START_OF_SCAN = b"\xff\xda"
#: Called directly, not through pydicom: pydicom would try GDCM if it is installed, which aborts on some files.
Decoder = Callable[[bytes, int], Pixels]  # the codestream, and the number of threads
DECODERS: dict[Packing, Decoder] = {
    Packing.JPEG: lambda data, _: imagecodecs.jpeg_decode(data),
    Packing.JPEG_LS: lambda data, _: imagecodecs.jpegls_decode(data),
    Packing.JPEG_2000: lambda data, threads: imagecodecs.jpeg2k_decode(data, numthreads=threads),
    Packing.HTJ2K: lambda data, _: imagecodecs.htj2k_decode(data),
    Packing.JPEG_XL: lambda data, threads: imagecodecs.jpegxl_decode(data, numthreads=threads),
}


def _decode_one_scan(data: bytes) -> Pixels:
    """Decode a frame of one scan with libjpeg; each further scan can take as long as the image, even if it is tiny."""
    if data.count(_START_OF_SCAN) > 1:
        raise UndecodablePixelData
    pixels: Pixels = libjpeg.utils.decode(data)
    return pixels


SECOND_DECODERS: dict[Packing, Callable[[bytes], Pixels]] = {
    Packing.JPEG: _decode_one_scan,
    Packing.JPEG_2000: openjpeg.utils.decode,
    Packing.HTJ2K: openjpeg.utils.decode,
}


def decode_codestream(
    frame: bytes, packing: Packing, shape: tuple[int, int], threads: int = 1
) -> tuple[Pixels, CodestreamHeader]:
    """Return the values of one grey frame [H, W] of `shape`, and the header of its codestream.

    A frame that lacks only its end marker is decoded, and `ended` is False. The formats have no checksums, so damage
    that leaves the syntax valid is not detected.

    Raises `UndecodablePixelData` for a frame of another size, in colour, with more than 16 bits, or cut off.
    """
    if packing in (Packing.JPEG_2000, Packing.HTJ2K):
        frame = bare_jpeg_2000(frame)
    claimed = check_codestream(frame, packing, shape)
    if packing in (Packing.JPEG_2000, Packing.HTJ2K):
        check_work(frame)
    if claimed.ended:
        values = _decode(frame, packing, threads)
    else:
        values = decode_without_end(frame, packing, lambda ended: _decode(ended, packing, threads))
    if values.shape != shape or values.dtype.kind not in "iu" or values.itemsize > 2:
        raise UndecodablePixelData
    if not _fits(values, claimed.bits):
        raise UndecodablePixelData
    return values, claimed


def _decode(frame: bytes, packing: Packing, threads: int) -> Pixels:
    try:
        with _heeding_dropped_errors():
            return DECODERS[packing](frame, threads)
    except (RuntimeError, ValueError):  # RuntimeError is the base of all imagecodecs errors
        if packing not in SECOND_DECODERS:
            raise
        return SECOND_DECODERS[packing](frame)


def _fits(values: Pixels, bits: int) -> bool:
    """Return whether unsigned values fit into `bits`; for JPEG Lossless, this is the only sign of damage.

    Some encoders write signed values as 16 bits wide although the header says fewer. Such values fit if their higher
    bits repeat the sign.
    """
    if values.dtype.kind != "u" or not int(values.max()) >> bits:
        return True
    extended = values.view(np.int16) if values.itemsize == 2 else values
    return bool(-(1 << bits - 1) <= extended.min() and extended.max() < 1 << bits - 1)


@contextmanager
def _heeding_dropped_errors() -> Iterator[None]:
    """Raise `RuntimeError` if imagecodecs' HTJ2K decoder drops an error and returns a partial result."""
    dropped = False

    def heed(_error: object) -> None:
        nonlocal dropped
        dropped = True

    hook, sys.unraisablehook = sys.unraisablehook, heed
    try:
        yield
    finally:
        sys.unraisablehook = hook
    if dropped:
        raise RuntimeError("The decoder dropped an error.")
