"""Damage to DICOM that keeps its structure: lengths, values, items, fragments, transfer syntaxes, codestreams."""

import random
import struct
from collections.abc import Callable
from dataclasses import dataclass

from shared.imaging.transfer_syntaxes import PACKINGS

_LONG_VRS = {b"OB", b"OW", b"OF", b"OD", b"OL", b"OV", b"SQ", b"UN", b"UT", b"UC", b"UR", b"SV", b"UV"}
_UNDEFINED = 0xFFFFFFFF
_LENGTHS = (0, 1, 2, 3, 7, 0x7FFF, 0xFFFE, 0xFFFF, 0x10000, 0x7FFFFFFF, 0xFFFFFFFE, _UNDEFINED)
_SHORTS = (0, 1, 2, 3, 7, 8, 9, 12, 15, 16, 17, 31, 32, 63, 64, 65, 255, 256, 1000, 4096, 32767, 32768, 65535)
#: Rows, columns, bits and all else that says how pixels lie.
_GEOMETRY = (
    0x00280002, 0x00280004, 0x00280008, 0x00280010, 0x00280011, 0x00280034, 0x00280100, 0x00280101, 0x00280102,
    0x00280103, 0x00280120, 0x00280121,
)  # fmt: skip
_TEXTS = (
    b"",
    b"\0\0",
    b"1\\1\\1",
    b"nan ",
    b"inf ",
    b"1e999 ",
    b"-1e-999",
    b"0 ",
    b"RGB ",
    b"MONOCHROME1 ",
    b"\xff" * 9,
)
_PIXEL_DATA, _SYNTAX, _FIRST_OF_DATA_SET = 0x7FE00010, 0x00020010, 0x00080000


@dataclass(frozen=True)
class _Element:
    tag: int
    start: int
    #: Where its value begins and, as far as it says so, ends.
    value: int
    end: int


def mutate_dicom(data: bytes, rng: random.Random) -> bytes:
    """Change one thing; bytes that are not DICOM any more stay as they are."""
    elements = _walk(data)
    return rng.choice(_MUTATIONS)(data, elements, rng) if elements else data


def _walk(data: bytes) -> list[_Element]:
    """Where the elements of the outermost level lie, as far as that can be followed."""
    at = 132 if data[128:132] == b"DICM" else 0
    elements = []
    while at + 8 <= len(data) and len(elements) < 500:
        group, number, vr, short = struct.unpack_from("<HH2sH", data, at)
        value, length = at + 8, short
        if not vr.isalpha():
            (length,) = struct.unpack_from("<I", data, at + 4)
        elif vr in _LONG_VRS and at + 12 <= len(data):
            value = at + 12
            (length,) = struct.unpack_from("<I", data, at + 8)
        end = value + length if length != _UNDEFINED else _end_of_items(data, value)
        elements.append(_Element(group << 16 | number, at, value, min(end, len(data))))
        at = end
    return elements


def _end_of_items(data: bytes, at: int) -> int:
    end = data.find(b"\xfe\xff\xdd\xe0\0\0\0\0", at)
    return len(data) if end < 0 else end + 8


Mutation = Callable[[bytes, list[_Element], random.Random], bytes]


def _lie_in_a_length(data: bytes, elements: list[_Element], rng: random.Random) -> bytes:
    element = rng.choice(elements)
    if element.value - element.start == 12 or not data[element.start + 4 : element.start + 6].isalpha():
        return data[: element.value - 4] + struct.pack("<I", rng.choice(_LENGTHS)) + data[element.value :]
    return data[: element.value - 2] + struct.pack("<H", rng.choice(_LENGTHS) & 0xFFFF) + data[element.value :]


def _lie_in_geometry(data: bytes, elements: list[_Element], rng: random.Random) -> bytes:
    known = [element for element in elements if element.tag in _GEOMETRY]
    if not known:
        return data
    element = rng.choice(known)
    (value,) = struct.unpack_from("<H", data.ljust(element.value + 2, b"\0"), element.value)
    number = rng.choice(_SHORTS) if rng.random() < 0.6 else (value + rng.choice((-1, 1, 8, -8))) & 0xFFFF
    return data[: element.value] + struct.pack("<H", number) + data[element.value + 2 :]


def _lie_in_a_text(data: bytes, elements: list[_Element], rng: random.Random) -> bytes:
    """Replace a value, and make the length fit."""
    element = rng.choice(elements)
    return _with_value(data, element, rng.choice(_TEXTS) * rng.choice((1, 1, 20)))


def _change_vr(data: bytes, elements: list[_Element], rng: random.Random) -> bytes:
    element = rng.choice(elements)
    vr = rng.choice((b"UN", b"SQ", b"OB", b"OW", b"US", b"DS", b"UI", b"LO", b"AT", b"ZZ", b"\0\0", b"PN"))
    return data[: element.start + 4] + vr + data[element.start + 6 :]


def _change_tag(data: bytes, elements: list[_Element], rng: random.Random) -> bytes:
    element = rng.choice(elements)
    tag = rng.choice((0x00080005, 0x00283000, 0x00283010, _PIXEL_DATA, 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD, 0x00090010))
    return data[: element.start] + struct.pack("<HH", tag >> 16, tag & 0xFFFF) + data[element.start + 4 :]


def _swap_syntax(data: bytes, elements: list[_Element], rng: random.Random) -> bytes:
    known = [element for element in elements if element.tag == _SYNTAX]
    if not known:
        return data
    name = rng.choice(list(PACKINGS)).encode()
    return _with_value(data, known[0], name + b"\0" * (len(name) % 2))


def _drop(data: bytes, elements: list[_Element], rng: random.Random) -> bytes:
    element = rng.choice(elements)
    return data[: element.start] + data[element.end :]


def _repeat(data: bytes, elements: list[_Element], rng: random.Random) -> bytes:
    element, place = rng.choice(elements), rng.choice(elements)
    copies = data[element.start : element.end] * rng.choice((1, 2, 100))
    return data[: place.start] + copies[:100_000] + data[place.start :]


def _nest(data: bytes, elements: list[_Element], rng: random.Random) -> bytes:
    """Insert sequences in sequences, of undefined length and not always ended, or of a defined one."""
    place, depth = rng.choice(elements), rng.choice((1, 3, 10, 100, 1000))
    if rng.random() < 0.7:
        opening = struct.pack("<HH2sHI", 0x0008, 0x2218, b"SQ", 0, _UNDEFINED) + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
        closing = b"\xfe\xff\x0d\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0"
        inserted = opening * depth + closing * (depth if rng.random() < 0.6 else rng.randrange(depth + 1))
    else:
        inserted = b""
        for _ in range(min(depth, 100)):
            item = struct.pack("<HHI", 0xFFFE, 0xE000, len(inserted)) + inserted
            inserted = struct.pack("<HH2sHI", 0x0008, 0x2218, b"SQ", 0, len(item)) + item
    return data[: place.start] + inserted + data[place.start :]


def _add_private(data: bytes, elements: list[_Element], rng: random.Random) -> bytes:
    place, length = rng.choice(elements), rng.choice((0, 10, 5000, 100_000))
    head = struct.pack("<HH2sHI", rng.choice((9, 11, 0x7FDF)), 0x1001, b"OB", 0, length)
    return data[: place.start] + head + bytes(length) + data[place.start :]


def _add_many(data: bytes, elements: list[_Element], rng: random.Random) -> bytes:
    """Insert elements of no length, or many values in one."""
    place, count = rng.choice(elements), rng.choice((10, 1000, 5000))
    if rng.random() < 0.5:
        tags = range(0x1000, 0x1000 + count)
        inserted = b"".join(struct.pack("<HH2sH", 0x0009, tag, b"LO", 0) for tag in tags)
    else:
        values = rng.choice((b"1\\", b"\\", b"\x1b$B\\", b"1.2.3\\")) * count
        values = values[:65534]
        tag = rng.choice((0x00281050, 0x00080005, 0x0020000D, 0x00280008))
        inserted = struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, rng.choice((b"DS", b"CS", b"UI")), len(values))
        inserted += values
    return data[: place.start] + inserted + data[place.start :]


def _split_fragments(data: bytes, elements: list[_Element], rng: random.Random) -> bytes:
    """Put item heads into the pixel data, or take an end away."""
    place = _pixels(data, elements)
    if place is None:
        return data
    at = rng.randrange(place.value, place.end + 1)
    head = struct.pack("<HHI", 0xFFFE, rng.choice((0xE000, 0xE0DD, 0xE00D)), rng.choice(_LENGTHS))
    return data[:at] + head * rng.choice((1, 1, 2, 2000)) + data[at + rng.choice((0, 8)) :]


def _corrupt_pixels(data: bytes, elements: list[_Element], rng: random.Random) -> bytes:
    """Change bytes of the pixel data alone, of a codestream more often its head."""
    place = _pixels(data, elements)
    if place is None or place.end <= place.value:
        return data
    changed = bytearray(data)
    last = place.end if rng.random() < 0.5 else min(place.end, place.value + 220)
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        changed[rng.randrange(place.value, last)] = rng.choice((0, 1, 0x7F, 0x80, 0xFE, 0xFF, rng.randrange(256)))
    return bytes(changed)


def _shift_pixels(data: bytes, elements: list[_Element], rng: random.Random) -> bytes:
    """Take bytes out of the pixel data, or put some in."""
    place = _pixels(data, elements)
    if place is None:
        return data
    at, count = rng.randrange(place.value, place.end + 1), rng.choice((1, 2, 8, 100))
    return data[:at] + data[at + count :] if rng.random() < 0.5 else data[:at] + rng.randbytes(count) + data[at:]


def _pixels(data: bytes, elements: list[_Element]) -> _Element | None:
    return next((element for element in elements if element.tag == _PIXEL_DATA), None)


def _with_value(data: bytes, element: _Element, value: bytes) -> bytes:
    head = data[element.start : element.value]
    if len(head) == 12 or not head[4:6].isalpha():
        head = head[:-4] + struct.pack("<I", len(value))
    else:
        head = head[:-2] + struct.pack("<H", len(value))
    return data[: element.start] + head + value + data[element.end :]


_MUTATIONS: tuple[Mutation, ...] = (
    _lie_in_a_length,
    _lie_in_geometry,
    _lie_in_geometry,
    _lie_in_a_text,
    _change_vr,
    _change_tag,
    _swap_syntax,
    _drop,
    _repeat,
    _nest,
    _add_private,
    _add_many,
    _split_fragments,
    _corrupt_pixels,
    _corrupt_pixels,
    _corrupt_pixels,
    _corrupt_pixels,
    _shift_pixels,
)
