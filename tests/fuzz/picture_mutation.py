"""Damage to PNG and JPEG that keeps their structure: chunks with a right checksum, segments with a right length."""

import random
import struct
import zlib
from collections.abc import Callable

_SIZES = (0, 1, 63, 64, 65, 1000, 2000, 32768, 65535, 0x7FFFFFFF, 0xFFFFFFFF)
_BOMB = zlib.compress(bytes(20_000_000), 9)


# --- PNG -------------------------------------------------------------------------------------------------------------

_Chunks = list[tuple[bytes, bytes]]


def mutate_png(data: bytes, rng: random.Random) -> bytes:
    """Change one chunk, and write all of them with checksums that fit."""
    chunks = _chunks(data)
    if chunks:
        rng.choice(_PNG)(chunks, rng)
    return data[:8] + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


def _chunks(data: bytes) -> _Chunks:
    at, chunks = 8, []
    while at + 12 <= len(data) and len(chunks) < 1000:
        (length,) = struct.unpack_from(">I", data, at)
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    return chunks


def _lie_in_the_head(chunks: _Chunks, rng: random.Random) -> None:
    kind, body = chunks[0]
    if rng.random() < 0.5:
        at = rng.choice((0, 4))
        body = body[:at] + struct.pack(">I", rng.choice(_SIZES)) + body[at + 4 :]
    else:
        at = rng.randrange(8, 13)
        body = body[:at] + bytes([rng.choice((0, 1, 2, 3, 4, 6, 8, 16, 255))]) + body[at + 1 :]
    chunks[0] = kind, body


def _corrupt(chunks: _Chunks, rng: random.Random) -> None:
    number = rng.randrange(len(chunks))
    kind, body = chunks[number]
    if body:
        at = rng.randrange(len(body))
        chunks[number] = kind, body[:at] + rng.randbytes(rng.choice((1, 1, 4))) + body[at + 1 :]


def _corrupt_pixels(chunks: _Chunks, rng: random.Random) -> None:
    """Change filters and pixels beneath the compression; or give too many or too few of them."""
    number = next((number for number, (kind, _) in enumerate(chunks) if kind == b"IDAT"), None)
    if number is None:
        return
    try:
        rows = bytearray(zlib.decompressobj().decompress(chunks[number][1], 1_000_000))
    except zlib.error:
        return
    for _ in range(rng.choice((1, 5, 100))):
        if rows:
            rows[rng.randrange(len(rows))] = rng.randrange(256)
    rows = rows[: rng.randrange(len(rows) + 1)] if rng.random() < 0.2 else rows * rng.choice((1, 1, 3))
    chunks[number] = b"IDAT", zlib.compress(bytes(rows))


def _add(chunks: _Chunks, rng: random.Random) -> None:
    bombs = {
        b"zTXt": b"k\0\0" + _BOMB,
        b"iTXt": b"k\0\1\0\0\0" + _BOMB,
        b"iCCP": b"k\0\0" + _BOMB,
        b"tEXt": b"k\0" + bytes(1000),
        b"eXIf": b"MM\0*\0\0\0\x08" + rng.randbytes(50),
        b"acTL": struct.pack(">II", rng.choice(_SIZES), 0),
        b"fcTL": rng.randbytes(26),
        b"fdAT": rng.randbytes(100),
        b"tRNS": rng.randbytes(rng.choice((1, 2, 6, 256))),
        b"PLTE": rng.randbytes(rng.choice((3, 768, 769))),
        b"IDAT": _BOMB,
        b"IHDR": struct.pack(">IIBBBBB", 64, 72, rng.choice((1, 8, 16)), rng.choice((0, 2, 3, 4, 6)), 0, 0, 0),
        b"sBIT": b"\x08",
        bytes(rng.randrange(65, 123) for _ in range(4)): rng.randbytes(9),
    }
    kind = rng.choice(list(bombs))
    for _ in range(rng.choice((1, 1, 1, 5))):
        chunks.insert(rng.randrange(len(chunks) + 1), (kind, bombs[kind]))


def _drop_or_move(chunks: _Chunks, rng: random.Random) -> None:
    chunk = chunks.pop(rng.randrange(len(chunks)))
    if rng.random() < 0.5:
        chunks.insert(rng.randrange(len(chunks) + 1), chunk)


_PNG: tuple[Callable[[_Chunks, random.Random], None], ...] = (
    _lie_in_the_head,
    _corrupt,
    _corrupt_pixels,
    _add,
    _drop_or_move,
)


# --- JPEG ------------------------------------------------------------------------------------------------------------


def mutate_jpeg(data: bytes, rng: random.Random) -> bytes:
    """Change one segment, or what lies between them."""
    segments = _segments(data)
    if not segments:
        return data
    start, end = rng.choice(segments)
    segment = data[start:end]
    match rng.randrange(7):
        case 0:  # what is in it
            at = rng.randrange(len(segment))
            segment = segment[:at] + bytes([rng.choice((0, 1, 17, 128, 255, rng.randrange(256)))]) + segment[at + 1 :]
        case 1:  # its length
            segment = segment[:2] + struct.pack(">H", rng.choice((0, 1, 2, 3, 255, 65535))) + segment[4:]
        case 2:  # several of it
            segment *= rng.choice((0, 2, 10, 300))
        case 3:  # application data
            body = rng.choice(
                (b"Exif\0\0MM\0*\0\0\0\x08", b"ICC_PROFILE\0\1\1", b"Photoshop 3.0\x008BIM", b"MPF\0MM\0*")
            )
            body += rng.randbytes(rng.choice((0, 20, 500)))
            marker = rng.choice((0xE1, 0xE2, 0xED, 0xEE, 0xFE))
            segment += (struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body) * rng.choice((1, 1, 200))
        case 4:  # another kind of it
            segment = bytes([0xFF, rng.randrange(0xC0, 0x100)]) + segment[2:]
        case 5:  # size and components
            return _lie_in_the_frame(data, segments, rng)
        case _:  # scans
            return data[:end] + data[segments[-1][0] : -2] * rng.choice((1, 5, 200)) + data[end:]
    return data[:start] + segment + data[end:]


def _segments(data: bytes) -> list[tuple[int, int]]:
    """Where the segments lie, up to the first scan."""
    at, segments = 2, []
    while at + 4 <= len(data) and data[at] == 0xFF and len(segments) < 1000:
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        segments.append((at, min(end, len(data))))
        if data[at + 1] == 0xDA:
            break
        at = end
    return segments


def _lie_in_the_frame(data: bytes, segments: list[tuple[int, int]], rng: random.Random) -> bytes:
    for start, end in segments:
        if 0xC0 <= data[start + 1] <= 0xCF and data[start + 1] not in (0xC4, 0xC8, 0xCC) and end - start > 10:
            if rng.random() < 0.6:
                at = start + rng.choice((5, 7))
                return data[:at] + struct.pack(">H", rng.choice(_SIZES) & 0xFFFF) + data[at + 2 :]
            at = start + rng.randrange(4, end - start)
            return data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]
    return data
