"""Converts the bytes of one element to values of the DICOM JSON model, PS3.18 annex F.

Values that violate a rule of their VR are kept: invalid numbers as text, and binary values of a wrong length as `UN`.
"""

import base64
import math
import re
import struct
from collections.abc import Iterable
from typing import Any

import numpy as np

from api.dicom.web.character_sets import CharacterSet

_NUMBERS = {"US": "H", "SS": "h", "UL": "L", "SL": "l", "UV": "Q", "SV": "q", "FL": "f", "FD": "d"}
#: Bytes per word, which are swapped if the file is big endian.
_WORD_BYTES = {"OB": 1, "UN": 1, "OW": 2, "OF": 4, "OL": 4, "OD": 8, "OV": 8}
_ONE_TEXT = {"LT", "ST", "UT", "UR"}
_TEXTS = {"AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "PN", "SH", "TM", "UC", "UI"} | _ONE_TEXT
VRS = _TEXTS | _WORD_BYTES.keys() | _NUMBERS.keys() | {"AT", "SQ"}
#: The VR of an element whose file does not state it, if the standard allows several.
CHOICES = {"US or OW": "OW", "US or SS or OW": "OW", "OB or OW": "OW"}

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
#: The largest integer that all JSON parsers read exactly.
_MAX_EXACT = 2**53 - 1
_NAME_PARTS = ("Alphabetic", "Ideographic", "Phonetic")


def describe(vr: str, value: bytes, characters: CharacterSet, *, little_endian: bool) -> dict[str, Any]:
    """Return an element that is not a sequence: its VR, and its values if it has any."""
    if vr in _TEXTS:
        return with_values(vr, _texts(vr, value, characters))
    if vr in _WORD_BYTES:
        return _binary(vr, value if little_endian else _swapped(value, _WORD_BYTES[vr]))
    code = "HH" if vr == "AT" else _NUMBERS[vr]
    item = struct.Struct("<>"[not little_endian] + code)
    if len(value) % item.size:
        return _binary("UN", value)
    found = item.iter_unpack(value)
    if vr == "AT":
        return with_values(vr, (f"{group:04X}{element:04X}" for group, element in found))
    return with_values(vr, (number(each) for (each,) in found))


def with_values(vr: str, values: Iterable[Any]) -> dict[str, Any]:
    """Return an element with values; an empty value among others is null."""
    found = list(values)
    return {"vr": vr, "Value": found} if found else {"vr": vr}


def number(value: float) -> float | str:
    """Return a number, or text if JSON cannot represent it (PS3.18 F.2.3)."""
    if isinstance(value, int):
        return value if abs(value) <= _MAX_EXACT else str(value)
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def name(text: str) -> dict[str, str] | None:
    """Return a person's name by its groups."""
    groups = (group.rstrip(" \0") for group in text.split("=", 2))
    return {part: group for part, group in zip(_NAME_PARTS, groups, strict=False) if group} or None


def decimal(text: str) -> float | str:
    """Return the number in a text, or the text if it is not a number."""
    if len(text) > 1000 or not _NUMBER.fullmatch(text):
        return text
    if re.fullmatch(r"[+-]?\d+", text) and abs(int(text)) <= _MAX_EXACT:
        return int(text)
    value = float(text)
    return value if math.isfinite(value) else text


def _texts(vr: str, value: bytes, characters: CharacterSet) -> list[Any]:
    whole = characters.decode(value, is_name=vr == "PN").rstrip(" \0")
    if not whole:
        return []
    if vr in _ONE_TEXT:
        return [whole]
    return [text_value(vr, each) for each in whole.split("\\")]


def text_value(vr: str, text: str) -> Any:
    """Return one value of a text VR."""
    if vr == "PN":
        return name(text)
    text = text.strip(" \0") if vr in ("DS", "IS", "UI") else text.rstrip(" \0")
    return (decimal(text) if vr in ("DS", "IS") else text) if text else None


def _binary(vr: str, value: bytes) -> dict[str, Any]:
    return {"vr": vr, "InlineBinary": base64.b64encode(value).decode()} if value else {"vr": vr}


def _swapped(value: bytes, word_bytes: int) -> bytes:
    """Return the words in little endian; an incomplete last word is unchanged."""
    whole = len(value) - len(value) % word_bytes
    return np.frombuffer(value[:whole], f">u{word_bytes}").byteswap().tobytes() + value[whole:]
