"""Files that claim more than they hold, or hold more than they seem to, put together by hand."""

import struct
import zlib
from collections.abc import Callable
from io import BytesIO

from PIL import Image
from pydicom.uid import DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian

from shared.imaging.header import PREFIX_BYTES
from shared.imaging.picture_header import PNG_SIGNATURE
from tests.synthetic_dicom import make_dicom, make_image

UNDEFINED = 0xFFFFFFFF
#: Fills what is read of a file to find its header, nearly.
FILLING = PREFIX_BYTES - 64 * 1024

IMAGE = make_dicom(make_image(), bits=12)
IMPLICIT = make_dicom(make_image(), bits=12, syntax=ImplicitVRLittleEndian)
_LONG_VRS = ("OB", "OW", "SQ", "UN", "UT")
_ITEM, _END = struct.pack("<HHI", 0xFFFE, 0xE000, 0), struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
_PATIENT, _SAMPLES, _PIXEL_DATA = 0x00100010, 0x00280002, 0x7FE00010


def element(tag: int, vr: str, value: bytes = b"", length: int | None = None) -> bytes:
    """An element in explicit little endian, with another `length` than its value's where one is given."""
    length = len(value) if length is None else length
    form = "<HH2sHI" if vr in _LONG_VRS else "<HH2sH"
    return (
        struct.pack(form, tag >> 16, tag & 0xFFFF, vr.encode(), *([0, length] if vr in _LONG_VRS else [length])) + value
    )


def implicit(tag: int, value: bytes) -> bytes:
    """An element in implicit little endian."""
    return struct.pack("<HHI", tag >> 16, tag & 0xFFFF, len(value)) + value


def insert(data: bytes, elements: bytes, before: int = _SAMPLES) -> bytes:
    """Put elements into a file, before that one of its own."""
    place = data.index(struct.pack("<HH", before >> 16, before & 0xFFFF), 132)
    return data[:place] + elements + data[place:]


def item(content: bytes) -> bytes:
    """A sequence's item."""
    return struct.pack("<HHI", 0xFFFE, 0xE000, len(content)) + content


def nested(levels: int, content: bytes = b"") -> bytes:
    """A VOI LUT sequence in an item of one in an item of one."""
    for _ in range(levels):
        content = element(0x00283010, "SQ", item(content))
    return content


def _endless_elements() -> bytes:
    tags = ((9 + 2 * (number >> 16), number & 0xFFFF) for number in range(0x1000, 0x1000 + FILLING // 8))
    return insert(IMAGE, b"".join(struct.pack("<HH2sH", *tag, b"LO", 0) for tag in tags))


def _searched_again_and_again() -> bytes:
    """Elements of undefined length; the items of each seem to go on to the end of the file, and do not."""
    one = element(0x00091010, "OB", length=UNDEFINED) + struct.pack("<HHI", 0xFFFE, 0xE000, 28) + _END
    return insert(IMAGE, one * (FILLING // len(one)))


def _character_sets() -> bytes:
    """Names that Python would look for among its modules, and remember."""
    names = b"\\".join(b"set%d" % number for number in range(FILLING // 12))
    return insert(IMPLICIT, implicit(0x00080005, names), 0x00080016)


def _character_sets_in_items() -> bytes:
    content = item(element(0x00080005, "CS", b"ISO 2022 IR 6\\ISO 2022 IR 13\\"))
    sequence = element(0x00081140, "SQ", length=UNDEFINED) + content * (FILLING // len(content)) + _END
    return insert(IMAGE, sequence, _PATIENT)


#: DICOM that makes a parser work; by what it does, and made only when it is asked for.
HEADERS: dict[str, Callable[[], bytes]] = {
    "a million elements": _endless_elements,
    "one element a million times": lambda: insert(IMAGE, element(0x00091001, "LO") * (FILLING // 8)),
    "a million items": lambda: insert(
        IMAGE, element(0x00081140, "SQ", length=UNDEFINED) + _ITEM * (FILLING // 8) + _END, _PATIENT
    ),
    "a million items in a table": lambda: insert(IMAGE, element(0x00283010, "SQ", _ITEM * (FILLING // 8)), _PIXEL_DATA),
    "sequences within sequences without an end": lambda: insert(
        IMAGE, (element(0x00081140, "SQ", length=UNDEFINED) + item(b"")[:4] + b"\xff" * 4) * (FILLING // 20), _PATIENT
    ),
    "a hundred levels of eight megabytes": lambda: insert(
        IMAGE, nested(100, element(0x00091001, "OB", bytes(FILLING))), _PIXEL_DATA
    ),
    "searched again and again": _searched_again_and_again,
    "four million windows": lambda: insert(IMPLICIT, implicit(0x00281050, b"1\\" * (FILLING // 2)), _PIXEL_DATA),
    "four million heights": lambda: insert(IMPLICIT, implicit(0x00280010, b"\x60\0" * (FILLING // 2)), 0x00280011),
    "eight million empty texts": lambda: insert(IMPLICIT, implicit(0x00080060, b"\\" * FILLING), _PATIENT),
    "four million syntaxes": lambda: (
        IMPLICIT[:132] + implicit(0x00020010, b"1\\" * (FILLING // 2)) + IMPLICIT[IMPLICIT.index(b"\x08\0\x16\0") :]
    ),
    "character sets that nobody knows": _character_sets,
    "character sets in each of many items": _character_sets_in_items,
    "a private creator of eight million names": lambda: insert(
        IMPLICIT, implicit(0x00091001, b"x") + implicit(0x00090010, b"\\" * FILLING), _PATIENT
    ),
    "a comment of four million escapes": lambda: insert(
        IMAGE,
        element(0x00080005, "CS", b"\\ISO 2022 IR 87 ") + element(0x00104000, "UT", b"\x1b$Ba" * (FILLING // 4)),
        0x00100010,
    ),
    "a length of four gigabytes": lambda: insert(IMAGE, element(0x00091001, "OB", b"", 0xFFFFFFFE)),
    "a value without an end": lambda: insert(IMAGE, element(0x00091001, "OB", bytes(FILLING), UNDEFINED)),
}


# --- deflated --------------------------------------------------------------------------------------------------------


def deflate_bomb(byte_count: int) -> bytes:
    """A deflated data set of a few hundred kilobytes with so many zeros before its pixels."""
    data = make_dicom(make_image(), bits=12, syntax=DeflatedExplicitVRLittleEndian)
    (meta_bytes,) = struct.unpack_from("<I", data, 140)
    begin = 144 + meta_bytes
    body = insert(bytes(132) + zlib.decompress(data[begin:], -zlib.MAX_WBITS), _marker(byte_count))[132:]
    deflater = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    head, tail = body.split(_MARK)
    parts = [deflater.compress(head)]
    parts += [deflater.compress(bytes(1024**2)) for _ in range(byte_count // 1024**2)]
    return data[:begin] + b"".join([*parts, deflater.compress(tail), deflater.flush()])


_MARK = b"the zeros come here"


def _marker(byte_count: int) -> bytes:
    return element(0x00091001, "OB", _MARK, byte_count)


# --- pictures --------------------------------------------------------------------------------------------------------


def chunk(kind: bytes, body: bytes) -> bytes:
    """A PNG's chunk."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(*chunks: bytes, height_px: int = 96, width_px: int = 80, rows: bytes | None = None) -> bytes:
    """A grey 8-bit PNG with further chunks before its pixels."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width_px, height_px, 8, 0, 0, 0, 0))
    pixels = zlib.compress(bytes(96 * 81) if rows is None else rows, 9)
    return b"".join([PNG_SIGNATURE, head, *chunks, chunk(b"IDAT", pixels), chunk(b"IEND", b"")])


def jpeg(segments: bytes = b"", **options: object) -> bytes:
    """A grey JPEG with further segments before its own."""
    buffer = BytesIO()
    Image.new("L", (80, 96), 90).save(buffer, "JPEG", **options)
    data = buffer.getvalue()
    return data[:2] + segments + data[2:]


def segment(marker: int, body: bytes = b"") -> bytes:
    """A JPEG's segment."""
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


_BOMB = zlib.compress(bytes(1024**2), 9)
_DIRECTORY = struct.pack(">H", 5000) + b"".join(struct.pack(">HHII", 1 + tag, 7, 60_000, 8) for tag in range(5000))

#: Pictures that make a parser work.
PICTURES: dict[str, Callable[[], bytes]] = {
    "profiles of eight gigabytes": lambda: png(*[chunk(b"iCCP", b"k\0\0" + _BOMB)] * (FILLING // len(_BOMB) // 2)),
    "texts of eight gigabytes": lambda: png(*[chunk(b"zTXt", b"k\0\0" + _BOMB)] * (FILLING // len(_BOMB) // 2)),
    "a million chunks": lambda: png(*[chunk(b"abCd", b"")] * (FILLING // 12)),
    "a million segments": lambda: jpeg(segment(0xE5) * (FILLING // 4)),
    "a million bytes of fill": lambda: jpeg(b"\xff" * FILLING),
    "EXIF in a million pieces": lambda: jpeg(segment(0xE1, b"Exif\0\0a") * (FILLING // 11)),
    "EXIF that points at itself": lambda: jpeg(segment(0xE1, b"Exif\0\0MM\0*\0\0\0\x08" + _DIRECTORY)),
    "rows of four billion pixels": lambda: png(height_px=65535, width_px=65535, rows=b""),
}
