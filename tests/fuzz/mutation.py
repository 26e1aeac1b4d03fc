"""From a case's number to its bytes: always the same ones, for the same corpus."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.fuzz.corpus import Original
from tests.fuzz.dicom_mutation import mutate_dicom
from tests.fuzz.picture_mutation import mutate_jpeg, mutate_png

#: Bytes and numbers at which code goes wrong.
EDGES = (0, 1, 2, 0x7F, 0x80, 0xFE, 0xFF)
#: Of a case: repetition upon repetition comes to gigabytes.
_MAX_BYTES = 4 * 1024**2
#: Of real files, which take longer than all others.
_REAL_SHARE = 0.05


@dataclass(frozen=True)
class Case:
    """One hostile file."""

    number: int
    #: What it was made from.
    original: str
    data: bytes


def make_case(number: int, seed: int, corpus: Sequence[Original]) -> Case:
    """Damage a file of the corpus in one to four ways, most of them such that a parser still follows."""
    rng = random.Random(f"{seed} {number}")
    synthetic = [original for original in corpus if not original.is_real]
    real = [original for original in corpus if original.is_real]
    original = rng.choice(real if real and rng.random() < _REAL_SHARE else synthetic)
    data = original.data
    for _ in range(rng.choice((1, 1, 1, 2, 2, 4))):
        if rng.random() < 0.7:
            data = _mutate_structure(data, rng)
        else:
            data = rng.choice(_BLIND)(data, rng, rng.choice(corpus).data)
        data = data[:_MAX_BYTES]
    return Case(number, original.name, data)


def _mutate_structure(data: bytes, rng: random.Random) -> bytes:
    if data.startswith(b"\x89PNG"):
        return mutate_png(data, rng)
    if data.startswith(b"\xff\xd8"):
        return mutate_jpeg(data, rng)
    return mutate_dicom(data, rng)


# --- without an idea of what the bytes mean --------------------------------------------------------------------------


def _flip(data: bytes, rng: random.Random, _: bytes) -> bytes:
    changed = bytearray(data)
    for _time in range(rng.choice((1, 1, 3, 10, 100))):
        if changed:
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _overwrite(data: bytes, rng: random.Random, _: bytes) -> bytes:
    at, count = _stretch(data, rng)
    return data[:at] + bytes([rng.choice(EDGES)]) * count + data[at + count :]


def _insert(data: bytes, rng: random.Random, _: bytes) -> bytes:
    at, count = _stretch(data, rng)
    return data[:at] + rng.randbytes(count) + data[at:]


def _delete(data: bytes, rng: random.Random, _: bytes) -> bytes:
    at, count = _stretch(data, rng)
    return data[:at] + data[at + count :]


def _repeat(data: bytes, rng: random.Random, _: bytes) -> bytes:
    at, count = _stretch(data, rng)
    return data[:at] + data[at : at + count] * rng.choice((2, 3, 50)) + data[at + count :]


def _cut(data: bytes, rng: random.Random, _: bytes) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _splice(data: bytes, rng: random.Random, other: bytes) -> bytes:
    """Go on as another file does."""
    return data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other) + 1) :]


def _stretch(data: bytes, rng: random.Random) -> tuple[int, int]:
    """A place, more often than not in the first kilobyte, and a length."""
    most = len(data) if rng.random() < 0.5 else min(1024, len(data))
    return rng.randrange(most + 1), rng.choice((1, 2, 4, 8, 64, 500))


_BLIND: tuple[Callable[[bytes, random.Random, bytes], bytes], ...] = (
    _flip,
    _overwrite,
    _insert,
    _delete,
    _repeat,
    _cut,
    _splice,
)
