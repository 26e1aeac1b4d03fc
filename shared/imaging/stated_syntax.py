"""Checks what a compressed frame states about itself against the DICOM header, without decoding."""

import struct
from collections.abc import Callable

from pydicom import uid

from shared.errors import UndecodablePixelData
from shared.imaging.codestream import (
    CodestreamHeader,
    jpeg_segments,
    read_htj2k_header,
    read_jpeg_2000_header,
    read_jpeg_header,
)
from shared.imaging.jpeg_2000_work import header_segments
from shared.imaging.jpeg_xl import read_jpeg_xl_header
from shared.imaging.transfer_syntaxes import PACKINGS, Packing

_HEADERS: dict[Packing, Callable[[bytes], CodestreamHeader]] = {
    Packing.JPEG: read_jpeg_header,
    Packing.JPEG_LS: read_jpeg_header,
    Packing.JPEG_2000: read_jpeg_2000_header,
    Packing.HTJ2K: read_htj2k_header,
    Packing.JPEG_XL: read_jpeg_xl_header,
}

_JPEG = "1.2.840.10008.1.2.4."
#: The possible transfer syntaxes by start-of-frame marker, best match first (PS3.5 A.4.1).
_BY_START_OF_FRAME = {
    0xC0: ("50", "51"),  # a decoder of the extended process also decodes the baseline process
    0xC1: ("51",),
    0xC2: ("55", "53"),
    0xC9: ("52",),
    0xCA: ("56", "54"),
}
_LOSSLESS, _JPEG_LS, _START_OF_SCAN = 0xC3, 0xF7, 0xDA
_CAPABILITIES, _CODING_STYLE = 0xFF50, 0xFF52  # ISO/IEC 15444-1 table A.2; HTJ2K requires CAP
_SOC_BYTES = 2
_TRANSFORM, _REVERSIBLE = 9, 1  # position and value in the body of COD, table A.20


def check_codestream(frame: bytes, packing: Packing, shape: tuple[int, int]) -> CodestreamHeader:
    """Return a codestream's header; raises `UndecodablePixelData` for another size, for colour, or over 16 bits."""
    claimed = _HEADERS[packing](frame)
    if (claimed.height_px, claimed.width_px) != shape or claimed.components != 1 or claimed.bits > 16:
        raise UndecodablePixelData
    return claimed


def stated_syntax(codestream: bytes, declared: str) -> str:
    """Return the transfer syntax of a codestream: `declared` if it is correct.

    Carina's decoders ignore a wrong transfer syntax, but clients that receive the codestream rely on it. Raises
    `UndecodablePixelData` for a process without a transfer syntax.
    """
    match PACKINGS[declared]:
        case Packing.JPEG | Packing.JPEG_LS:
            possible = [uid.UID(_JPEG + number) for number in _jpeg_syntaxes(codestream)]
        case Packing.JPEG_2000 | Packing.HTJ2K:
            possible = _jpeg_2000_syntaxes(codestream)
        case _:
            return declared
    if not possible:
        raise UndecodablePixelData
    return declared if declared in possible else possible[0]


def _jpeg_syntaxes(frame: bytes) -> tuple[str, ...]:
    process = 0
    for marker, start, end in jpeg_segments(frame):
        if marker in _BY_START_OF_FRAME or marker in (_LOSSLESS, _JPEG_LS):
            process = marker
        if marker == _START_OF_SCAN and process in (_LOSSLESS, _JPEG_LS) and end - start >= 3:
            parameter = frame[end - 3]  # the predictor (JPEG), or the maximum error (JPEG-LS)
            if process == _LOSSLESS:
                return ("70", "57") if parameter == 1 else ("57",)
            return ("80", "81") if parameter == 0 else ("81",)
    return _BY_START_OF_FRAME.get(process, ())


def _jpeg_2000_syntaxes(codestream: bytes) -> list[uid.UID]:
    try:
        segments = dict(header_segments(codestream, _SOC_BYTES))
    except struct.error as exc:
        raise UndecodablePixelData from exc
    reversible = segments.get(_CODING_STYLE, b"")[_TRANSFORM : _TRANSFORM + 1] == bytes([_REVERSIBLE])
    if _CAPABILITIES in segments:
        return [uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL, uid.HTJ2K] if reversible else [uid.HTJ2K]
    if reversible:
        return [uid.JPEG2000Lossless, uid.JPEG2000, uid.JPEG2000MCLossless, uid.JPEG2000MC]
    return [uid.JPEG2000, uid.JPEG2000MC]
