"""Decodes the text of a data set by its Specific Character Set (PS3.3 C.12.1.1.2, PS3.5 section 6.1).

Decoding never fails: an invalid byte becomes U+FFFD, and an unknown character set means Latin-1.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

#: The default repertoire is ASCII; files without the attribute mostly contain Latin-1.
_DEFAULT = "latin_1"
#: By the number in the ISO registry, for single bytes and for pairs with the high bit set (G1).
_REGISTERED = {
    "6": _DEFAULT,
    "13": "shift_jis",
    "58": "gb2312",
    "100": "latin_1",
    "101": "iso8859_2",
    "109": "iso8859_3",
    "110": "iso8859_4",
    "126": "iso8859_7",
    "127": "iso8859_6",
    "138": "iso8859_8",
    "144": "iso8859_5",
    "148": "iso8859_9",
    "149": "euc_kr",
    "166": "tis_620",
    "192": "utf_8",
    "203": "iso8859_15",
}
#: Character sets without escape sequences, by the names that writers use.
_STAND_ALONE = {
    "GB18030": "gb18030",
    "GBK": "gbk",
    "ISO2022GBK": "gbk",
    "GB2312": "gb2312",
    "ISO202258": "gb2312",
    "UTF8": "utf_8",
}
_ASCII = {"", "ISOIR6", "ISO2022IR6"}
_TERM = re.compile(r"ISO(2022)?IR(\d+)")
#: Escape sequences that select the set of bytes with the high bit (G1), PS3.3 tables C.12-3 and C.12-4.
_G1 = {
    b")I": "13",
    b"$)A": "58",
    b"-A": "100",
    b"-B": "101",
    b"-C": "109",
    b"-D": "110",
    b"-F": "126",
    b"-G": "127",
    b"-H": "138",
    b"-L": "144",
    b"-M": "148",
    b"$)C": "149",
    b"-T": "166",
    b"-b": "203",
}
#: Escape sequences that select the set of bytes without the high bit (G0): pairs, or single bytes again.
_PAIRS, _SINGLE = (b"$B", b"$@", b"$(D"), (b"(B", b"(J")
_SEQUENCE = re.compile(b"\x1b(" + b"|".join(map(re.escape, [*_G1, *_PAIRS, *_SINGLE])) + b")")
_DELIMITERS = re.compile(rb"[\\\r\n\f\t]"), re.compile(rb"[\\\r\n\f\t^=]")


@dataclass(frozen=True)
class CharacterSet:
    """The character sets of a data set's text."""

    #: Python's codec of bytes before any escape sequence.
    codec: str = _DEFAULT
    #: Whether the first value names a set for bytes with the high bit, which delimiters restore.
    resets: bool = False
    escapes: bool = True

    @classmethod
    def of(cls, terms: Sequence[str]) -> "CharacterSet":
        """Return the character set for the values of Specific Character Set."""
        first, *others = [re.sub(r"[\s_-]", "", term).upper() for term in terms or [""]]
        if first in _STAND_ALONE or _codec(first) == "utf_8":
            return cls(_STAND_ALONE.get(first, "utf_8"), escapes=False)
        if first not in _ASCII:
            return cls(_codec(first), resets=True)
        # Some writers omit the escape sequence, so text without one is decoded with the set of a later value.
        found = (_codec(name) for name in others)
        return cls(next((codec for codec in found if codec not in (_DEFAULT, "utf_8")), _DEFAULT))

    def decode(self, value: bytes, *, is_name: bool = False) -> str:
        """Return the text without escape sequences, which apply up to a delimiter of values, lines or name groups."""
        if not self.escapes or b"\x1b" not in value:
            return value.decode(self.codec, "replace")
        plain, *stretches = _SEQUENCE.split(value)
        text, codec, pairs = [plain.decode(self.codec, "replace")], self.codec, b""
        for sequence, stretch in zip(stretches[::2], stretches[1::2], strict=True):
            if sequence in _G1:
                codec = _REGISTERED[_G1[sequence]]
            else:
                pairs = sequence if sequence in _PAIRS else b""
            if pairs:
                text.append((b"\x1b" + pairs + stretch).decode("iso2022_jp_2", "replace"))
                continue
            end = _DELIMITERS[is_name].search(stretch) if self.resets else None
            place = end.start() if end else len(stretch)
            text += [stretch[:place].decode(codec, "replace"), stretch[place:].decode(self.codec, "replace")]
            codec = self.codec if end else codec
        return "".join(text)


def _codec(name: str) -> str:
    found = _TERM.fullmatch(name)
    return _REGISTERED.get(found[2], _DEFAULT) if found else _DEFAULT
