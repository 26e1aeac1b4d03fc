"""Images of whole numbers, the same on every machine, and the digests that decoding them must come to.

A phantom's floating-point numbers may round differently on another processor, so these images are computed from
integers alone.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

#: By image, of what its pixels were before anything encoded them; `leg` as pydicom reads the uncompressed original.
SHA256: dict[str, str] = json.loads((Path(__file__).parent / "golden_pixels.json").read_text())
#: (bits stored, signed); an odd size, so that 8-bit cells need a byte of padding.
DEPTHS = [(8, False), (8, True), (10, False), (12, False), (12, True), (16, False), (16, True)]
HEIGHT_PX, WIDTH_PX = 137, 101


def image_name(bits: int, signed: bool) -> str:
    return f"{bits} bits, {'signed' if signed else 'unsigned'}"


def golden_image(bits: int, signed: bool = False) -> NDArray[np.integer]:
    """A smooth hill under noise that uses every one of `bits`, [137, 101]: uint8, int8, uint16 or int16."""
    down, across = np.mgrid[:HEIGHT_PX, :WIDTH_PX].astype(np.int64)
    hill = down * (HEIGHT_PX - 1 - down) * across * (WIDTH_PX - 1 - across)
    noise = (down * 7919 + across * 104729 + down * across * 31) % 1021
    top = (1 << bits) - 1
    values = (hill * 31 // hill.max() * 1020 + noise) * top // (32 * 1020)
    values.flat[:2] = 0, top
    if signed:
        return (values - (1 << bits - 1)).astype(np.int8 if bits <= 8 else np.int16)
    return values.astype(np.uint8 if bits <= 8 else np.uint16)


def digest(pixels: NDArray[np.integer]) -> str:
    """SHA-256 of the values row by row, as 32-bit little-endian integers, whatever type holds them."""
    return hashlib.sha256(pixels.astype("<i4").tobytes()).hexdigest()
