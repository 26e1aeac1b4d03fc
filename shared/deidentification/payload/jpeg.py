"""Removes segments that define no pixels from JPEG and JPEG-LS streams (ITU-T T.81 annex B, T.87 annex C).

It removes application data, comments, reserved markers, fill bytes, data after the end marker, and tables that no scan
uses. Compressed data is copied bit for bit.
"""

import re
import struct
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from shared.errors import UndecodablePixelData

_SOI, _EOI = b"\xff\xd8", b"\xff\xd9"
_DHT, _DAC, _SOS, _DQT, _DNL, _DRI, _LSE = 0xC4, 0xCC, 0xDA, 0xDB, 0xDC, 0xDD, 0xF8
_SOF_OF_JPEG_LS = 0xF7
_FRAMES = {*range(0xC0, 0xD0), _SOF_OF_JPEG_LS} - {_DHT, 0xC8, _DAC}
_LOSSLESS, _PROGRESSIVE, _FIRST_ARITHMETIC = {0xC3, 0xCB}, {0xC2, 0xCA}, 0xC9
#: The start of another image, and the markers of hierarchical JPEG, which is not decoded.
_REFUSED = {0xD8, 0xDE, 0xDF}
#: The next marker with a segment. Fill bytes (B.1.1.2), other bytes and markers without a segment before it are
#: skipped, as decoders do.
_MARKER = re.compile(rb"\xff([^\x00\x01\xff\xd0-\xd7])")
#: Whether a byte after FF ends compressed data. Stuffed bytes (in JPEG-LS, stuffed bits), FF and restart markers do
#: not.
_ENDS = np.array([byte not in {0x00, 0xFF, *range(0xD0, 0xD8)} for byte in range(256)])
_ENDS_IN_JPEG_LS = np.array([byte not in {*range(0x80), 0xFF, *range(0xD0, 0xD8)} for byte in range(256)])
#: Size of the block of compressed data that is searched at once.
_WINDOW_BYTES = 256 * 1024
#: A colour profile of 16 MiB takes 256 segments, an image with many scans about 500.
_MAX_SEGMENTS = 2000
_SYMBOL_COUNTS = 16
#: Maximum padding after a frame without end marker.
_MAX_PADDING_BYTES = 64

_JFIF = b"\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0"
_ADOBE = b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0"
#: A decoder recognises these segments by their first bytes and their minimum length.
_JFIF_START, _JFIF_BYTES, _ADOBE_START, _ADOBE_BYTES = b"JFIF\0", 14, b"Adobe", 12

#: A table's marker and its number.
_Key = tuple[int, int]


@dataclass
class _Frame:
    """A frame header (B.2.2): its process, and the quantisation table of each component."""

    process: int
    quantisations: dict[int, int]

    def tables_of(self, scan: bytes) -> list[_Key]:
        """Return the tables that a scan uses, from its header (B.2.3)."""
        if not scan or len(scan) != 4 + 2 * scan[0]:
            raise UndecodablePixelData
        first, _, refines = scan[-3], scan[-2], scan[-1] >> 4
        keys: list[_Key] = [(_DRI, 0), (_LSE, 0)]
        for component, numbers in zip(scan[1:-3:2], scan[2:-3:2], strict=True):
            dc, ac = numbers >> 4, 0x10 | numbers & 0xF
            is_lossless = self.process in _LOSSLESS
            has_dc = is_lossless or (first == 0 and not (refines and self.process in _PROGRESSIVE))
            has_ac = not is_lossless and (first > 0 or self.process not in _PROGRESSIVE)
            entropy = _DAC if self.process >= _FIRST_ARITHMETIC else _DHT
            keys += [(entropy, number) for number, is_used in ((dc, has_dc), (ac, has_ac)) if is_used]
            if not is_lossless and component in self.quantisations:
                # Decoders read this table once, with the component's first scan.
                keys.append((_DQT, self.quantisations.pop(component)))
        return [(_LSE, 0), (_DRI, 0)] if self.process == _SOF_OF_JPEG_LS else keys


@dataclass
class _Tables:
    """Tables that are defined but not yet used; each becomes a separate segment."""

    _pending: dict[_Key, bytes] = field(default_factory=dict)

    def define(self, marker: int, body: bytes) -> None:
        """Add the tables of a segment (B.2.4); they replace earlier ones with the same number."""
        position = 0
        while position < len(body):
            number, size = body[position], _table_bytes(marker, body[position : position + 1 + _SYMBOL_COUNTS])
            table = body[position : position + size]
            if len(table) < size:
                raise UndecodablePixelData
            self._pending[marker, number & 0xF if marker == _DQT else number] = table
            position += size

    def define_one(self, marker: int, body: bytes, size: int) -> None:
        if len(body) != size:
            raise UndecodablePixelData
        self._pending[marker, 0] = body

    def take(self, keys: list[_Key]) -> list[bytes]:
        """Return and remove the pending segments with these keys."""
        found = [(key, self._pending.pop(key)) for key in keys if key in self._pending]
        return [_segment(marker, table) for (marker, _), table in found]


def bare_jpeg(data: bytes, *, is_picture: bool = False, orientation: bytes = b"") -> bytes:
    """Return a JPEG or JPEG-LS stream of one frame with only its pixels, and `orientation` as its first segment.

    For a JPEG file (`is_picture`), segments that define the colour space are kept without their other fields. If the
    end marker of a DICOM frame is missing, it is not added: only decoding shows whether more is missing. Raises
    `UndecodablePixelData`.
    """
    if not data.startswith(_SOI):
        raise UndecodablePixelData
    stream, position, end_marker = _Stream(data), len(_SOI), _EOI
    for _ in range(_MAX_SEGMENTS):
        if position == len(data) and stream.has_scan and not is_picture:
            end_marker = b""
            break
        marker, start, end = _next_segment(data, position)
        if marker == _EOI[1]:
            break
        position = stream.take_scan(start, end) if marker == _SOS else end
        if marker != _SOS:
            stream.take_segment(marker, data[start:end])
    else:
        raise UndecodablePixelData
    if not stream.has_scan:
        raise UndecodablePixelData
    return b"".join([_SOI, orientation, *(stream.colours.values() if is_picture else ()), *stream.parts, end_marker])


class _Stream:
    """Collects the kept parts of a stream, in order."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._tables = _Tables()
        self._frame: _Frame | None = None
        self.parts: list[bytes] = []
        #: The segments that define the colour space.
        self.colours: dict[str, bytes] = {}
        self.has_scan = False

    def take_segment(self, marker: int, body: bytes) -> None:
        """Keep a segment if it defines pixels; raises `UndecodablePixelData` for a misplaced one."""
        if marker in _FRAMES:
            if self._frame is not None:
                raise UndecodablePixelData
            self._frame = _read_frame(marker, body)
            self.parts.append(_segment(marker, body))
        elif marker in (_DHT, _DAC, _DQT):
            self._tables.define(marker, body)
        elif marker == _DRI:
            self._tables.define_one(marker, body, 2)
        elif marker == _LSE and body[:1] == b"\1":  # other types hold mapping tables, which no grey image has
            self._tables.define_one(marker, body, 11)
        elif marker == _DNL and self.has_scan:
            self.parts.append(_segment(marker, body[:2]))
        elif marker == 0xE0 and body.startswith(_JFIF_START) and len(body) >= _JFIF_BYTES:
            self.colours["JFIF"] = _JFIF
        elif marker == 0xEE and body.startswith(_ADOBE_START) and len(body) >= _ADOBE_BYTES:
            self.colours["Adobe"] = _ADOBE + body[11:12]  # the colour transform

    def take_scan(self, start: int, end: int) -> int:
        """Keep a scan with its header from `start` to `end`, and the tables that it uses; return the scan's end."""
        if self._frame is None:
            raise UndecodablePixelData
        ends = _ENDS_IN_JPEG_LS if self._frame.process == _SOF_OF_JPEG_LS else _ENDS
        scan_end = _find_scan_end(self._data, end, ends)
        self.parts += self._tables.take(self._frame.tables_of(self._data[start:end]))
        self.parts.append(self._data[start - 4 : scan_end])
        self.has_scan = True
        return scan_end


def _next_segment(data: bytes, position: int) -> tuple[int, int, int]:
    """Return the marker, the start and the end of the next segment."""
    found = _MARKER.search(data, position)
    if found is None:
        raise UndecodablePixelData
    marker, start = found[1][0], found.end()
    if marker == _EOI[1]:
        return marker, start, start
    length = int.from_bytes(data[start : start + 2], "big")
    end = start + length
    if marker in _REFUSED or length < 2 or end > len(data):
        raise UndecodablePixelData
    return marker, start + 2, end


def _find_scan_end(data: bytes, start: int, ends: NDArray[np.bool_]) -> int:
    """Return the end of the compressed data at `start`: the next marker or its fill bytes, or the end of the data."""
    for begin in range(start, len(data) - 1, _WINDOW_BYTES):
        values = np.frombuffer(data, np.uint8, min(_WINDOW_BYTES + 1, len(data) - begin), begin)
        is_end = (values[:-1] == 0xFF) & ends[values[1:]]
        index = int(is_end.argmax())
        if is_end[index]:
            return start + len(data[start : begin + index].rstrip(b"\xff"))
    if len(data) - len(data.rstrip(b"\xff\0")) > _MAX_PADDING_BYTES:
        raise UndecodablePixelData
    return len(data)


def _read_frame(marker: int, body: bytes) -> _Frame:
    if len(body) < 6 or len(body) != 6 + 3 * body[5]:
        raise UndecodablePixelData
    return _Frame(marker, dict(zip(body[6::3], body[8::3], strict=True)))


def _table_bytes(marker: int, table: bytes) -> int:
    """Return the length of a table (B.2.4.1 to B.2.4.3)."""
    if marker == _DQT:
        return 1 + 64 * (1 + (table[0] >> 4 & 1))
    return 2 if marker == _DAC else 1 + _SYMBOL_COUNTS + sum(table[1 : 1 + _SYMBOL_COUNTS])


def _segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body
