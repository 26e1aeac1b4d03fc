"""Metadata say what the file holds: every VR, in both byte orders, in every character set, by its rules or not."""

import base64
import json
import struct
from io import BytesIO
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset

from api.dicom.web.dicom_json import from_dataset, to_text
from shared.imaging.dicom_file import read_dicom
from shared.imaging.header import PREFIX_BYTES
from tests.requirements import SHARED_CASES
from tests.synthetic_dicom import make_dicom, make_image

LONG = {"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"}
SYNTAXES = {"<": b"1.2.840.10008.1.2.1\0", ">": b"1.2.840.10008.1.2.2\0"}
UNDEFINED = 0xFFFFFFFF


def element(tag: int, vr: str, value: bytes, order: str = "<") -> bytes:
    head = struct.pack(f"{order}HH", tag >> 16, tag & 0xFFFF) + vr.encode()
    if vr in LONG:
        return head + struct.pack(f"{order}HI", 0, len(value)) + value
    return head + struct.pack(f"{order}H", len(value)) + value


def described(*elements: bytes, order: str = "<") -> dict[str, Any]:
    """The metadata of a data set in explicit VR, of which the JSON can be read."""
    meta = element(0x00020010, "UI", SYNTAXES[order])
    data = bytes(128) + b"DICM" + meta + b"".join(elements)
    return json.loads(to_text(from_dataset(read_dicom(data, max_bytes=PREFIX_BYTES, kept=None).dataset)))


def value_of(vr: str, value: bytes, order: str = "<") -> dict[str, Any]:
    """One element, private so that no dictionary knows better."""
    return described(element(0x00080060, "CS", b"DX", order), element(0x00111001, vr, value, order), order=order)[
        "00111001"
    ]


def text_of(value: bytes, character_set: bytes, vr: str = "PN") -> Any:
    tag = 0x00100010 if vr == "PN" else 0x00104000
    found = described(element(0x00080005, "CS", character_set), element(tag, vr, value))
    assert found["00080005"]["Value"] == ["ISO_IR 192"]
    return found[f"{tag:08X}"]["Value"]


@pytest.mark.parametrize(
    ("vr", "value", "expected"),
    [
        ("AE", b"A title of more than sixteen ", ["A title of more than sixteen"]),
        ("AS", b"42 years", ["42 years"]),
        ("CS", b"lower case, and longer than sixteen ", ["lower case, and longer than sixteen"]),
        ("DA", b"2026.01.02", ["2026.01.02"]),
        ("DA", b"soon", ["soon"]),
        ("DS", b"0.14399999380111694\\1e-16 ", [0.14399999380111694, 1e-16]),
        ("DS", b"2048,5\\-7\\+.5\\5.\\", ["2048,5", -7, 0.5, 5.0, None]),
        ("DS", b"1e999\\nan\\Infinity\\1_000\\0x10", ["1e999", "nan", "Infinity", "1_000", "0x10"]),
        ("DT", b"yesterday ", ["yesterday"]),
        ("IS", b"12345678901234 ", [12345678901234]),
        ("IS", b"12\\1.5\\twelve\\\\ 7", [12, 1.5, "twelve", None, 7]),
        ("LO", b"x" * 100, ["x" * 100]),
        ("LO", b"a\\\\b\\", ["a", None, "b", None]),
        ("LT", b"one\\text ", ["one\\text"]),
        ("SH", b"ACC-2024-0000000000001", ["ACC-2024-0000000000001"]),
        ("ST", b"a\\b", ["a\\b"]),
        ("TM", b"25:61", ["25:61"]),
        ("UC", b"a\\b ", ["a", "b"]),
        ("UI", b"1.02.003\0", ["1.02.003"]),
        ("UI", b"no uid at all, and much longer than the sixty-four characters of one", None),
        ("UR", b"http://a.b/c\\d ", ["http://a.b/c\\d"]),
        ("UT", b"a\\b", ["a\\b"]),
        ("PN", b"A" * 80 + b"^B", [{"Alphabetic": "A" * 80 + "^B"}]),
        ("PN", b"A^B=C=D=E ", [{"Alphabetic": "A^B", "Ideographic": "C", "Phonetic": "D=E"}]),
        ("PN", b"==X\\\\Y^Z", [{"Phonetic": "X"}, None, {"Alphabetic": "Y^Z"}]),
    ],
)
def test_text_is_given_whether_or_not_it_keeps_to_its_rules(vr: str, value: bytes, expected: list[Any] | None) -> None:
    assert value_of(vr, value) == {"vr": vr, "Value": expected or [value.decode()]}


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("vr", "code", "values"),
    [
        ("US", "H", [1, 65535]),
        ("SS", "h", [-1, 7]),
        ("UL", "I", [2**32 - 1]),
        ("SL", "i", [-(2**31)]),
        ("UV", "Q", [2**53 - 1]),
        ("SV", "q", [-5]),
        ("FL", "f", [0.5, -1.25]),
        ("FD", "d", [0.1, 1e300]),
    ],
)
def test_numbers_are_read_in_the_byte_order_of_the_file(vr: str, code: str, values: list[float], order: str) -> None:
    packed = struct.pack(f"{order}{len(values)}{code}", *values)
    assert value_of(vr, packed, order) == {"vr": vr, "Value": values}


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("vr", "size"), [("OB", 1), ("OW", 2), ("OF", 4), ("OL", 4), ("OD", 8), ("OV", 8)])
def test_binary_values_are_little_endian(vr: str, size: int, order: str) -> None:
    words = [bytes(range(start, start + size)) for start in (0, 64)]  # little endian
    value = b"".join(word if order == "<" else word[::-1] for word in words)
    assert base64.b64decode(value_of(vr, value, order)["InlineBinary"]) == b"".join(words)


def test_numbers_that_json_has_not_are_text() -> None:
    values = struct.pack("<3d", float("nan"), float("inf"), float("-inf"))
    assert value_of("FD", values)["Value"] == ["NaN", "Infinity", "-Infinity"]
    assert value_of("UV", struct.pack("<Q", 2**64 - 1))["Value"] == [str(2**64 - 1)]


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_tag_is_eight_digits(order: str) -> None:
    assert value_of("AT", struct.pack(f"{order}HH", 0x0018, 0x00FF), order)["Value"] == ["001800FF"]


@pytest.mark.parametrize(("vr", "value"), [("US", b"\1\2\3"), ("FD", b"\0" * 12), ("AT", b"\0\1"), ("UN", b"abc")])
def test_binary_values_of_a_wrong_length_are_unknown_bytes(vr: str, value: bytes) -> None:
    assert value_of(vr, value) == {"vr": "UN", "InlineBinary": base64.b64encode(value).decode()}


@pytest.mark.parametrize("vr", ["AT", "CS", "DS", "FD", "IS", "LO", "OB", "OW", "PN", "SQ", "UI", "UN", "US", "UT"])
def test_an_empty_element_has_no_value(vr: str) -> None:
    assert value_of(vr, b"") == {"vr": vr}


def test_blank_text_is_no_value() -> None:
    assert value_of("LO", b"  ") == {"vr": "LO"}


def test_group_lengths_are_left_out() -> None:
    assert "00080000" not in described(
        element(0x00080000, "UL", struct.pack("<I", 8)), element(0x00080060, "CS", b"DX")
    )


def test_private_elements_and_items_are_given() -> None:
    item = element(0x00091002, "LO", b"inner\xe9") + element(0x00080060, "CS", b"DX")
    sequence = struct.pack("<HHI", 0xFFFE, 0xE000, len(item)) + item + struct.pack("<HHI", 0xFFFE, 0xE000, 0)
    found = described(
        element(0x00080005, "CS", b"ISO_IR 100"),
        element(0x00090010, "LO", b"MAKER "),
        element(0x00091001, "SQ", sequence),
    )
    assert found["00090010"] == {"vr": "LO", "Value": ["MAKER"]}
    first, second = found["00091001"]["Value"]
    assert first == {"00091002": {"vr": "LO", "Value": ["inneré"]}, "00080060": {"vr": "CS", "Value": ["DX"]}}
    assert second == {}


@pytest.mark.parametrize(("signed", "vr", "value"), [(0, "US", 65535), (1, "SS", -1)])
def test_an_implicit_choice_follows_the_pixels_sign(signed: int, vr: str, value: int) -> None:
    image = make_dicom(make_image(), syntax="1.2.840.10008.1.2", PixelRepresentation=signed)
    at = image.index(struct.pack("<HHI", 0x0028, 0x0103, 2)) + 10
    image = image[:at] + struct.pack("<HHIH", 0x0028, 0x0120, 2, 0xFFFF) + image[at:]
    found = from_dataset(read_dicom(image, max_bytes=PREFIX_BYTES, kept=None).dataset)
    assert found["00280120"] == {"vr": vr, "Value": [value]}


@pytest.mark.parametrize(
    ("tag", "vr", "value"),
    [
        (0x00080005, "OB", b"ISO_IR 100"),
        (0x00280103, "US", b"\1"),
        (0x00280103, "FD", b"1"),
    ],
)
def test_an_element_that_others_depend_on_and_that_cannot_be_read_costs_none_of_them(
    tag: int, vr: str, value: bytes
) -> None:
    elements = [element(tag, vr, value), element(0x00100010, "PN", b"M\xfcller")]
    assert described(*sorted(elements))["00100010"]["Value"] == [{"Alphabetic": "Müller"}]


@pytest.mark.parametrize(
    ("character_set", "codec", "text"),
    [
        (b"ISO_IR 100", "latin_1", "Müller^Ä"),
        (b"ISO_IR 101", "iso8859_2", "Łukasz^Ż"),
        (b"ISO_IR 144", "iso8859_5", "Люкceмбypг"),
        (b"ISO_IR 126", "iso8859_7", "Διονυσιος"),
        (b"ISO_IR 127", "iso8859_6", "قباني^لنزار"),
        (b"ISO_IR 138", "iso8859_8", "שרון^דבורה"),
        (b"ISO_IR 148", "iso8859_9", "Çavuşoğlu"),
        (b"ISO_IR 166", "tis_620", "นามสกุล"),
        (b"ISO_IR 203", "iso8859_15", "Œuvre€"),
        (b"ISO_IR 13", "shift_jis", "ﾔﾏﾀﾞ^ﾀﾛｳ"),
        (b"ISO_IR 192", "utf_8", "王^小东"),
        (b"GB18030", "gb18030", "王^小东"),
        (b"GBK", "gbk", "王^小东"),
        (b"ISO 2022 IR 149", "euc_kr", "김^희중"),
        (b"\\ISO 2022 IR 149", "euc_kr", "김^희중"),
        (b"ISO-IR 100", "latin_1", "Müller"),
    ],
)
def test_text_without_escape_sequences(character_set: bytes, codec: str, text: str) -> None:
    assert text_of(text.encode(codec), character_set) == [{"Alphabetic": text}]


def test_pairs_may_hold_the_byte_of_a_backslash() -> None:
    pair = "誠"  # 0xD5 0x5C in GB18030
    assert b"\\" in pair.encode("gb18030")
    assert text_of((pair + "\\" + pair).encode("gb18030"), b"GB18030") == [{"Alphabetic": pair}] * 2


@pytest.mark.parametrize(
    ("character_set", "value", "expected"),
    [  # PS3.5 annexes H to K
        (
            b"\\ISO 2022 IR 87",
            b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B",
            {"Alphabetic": "Yamada^Tarou", "Ideographic": "山田^太郎", "Phonetic": "やまだ^たろう"},
        ),
        (
            b"ISO 2022 IR 13\\ISO 2022 IR 87",
            b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3=\x1b$B;3ED\x1b(J^\x1b$BB@O:\x1b(J=\x1b$B$d$^$@\x1b(J^\x1b$B$?$m$&\x1b(J",
            {"Alphabetic": "ﾔﾏﾀﾞ^ﾀﾛｳ", "Ideographic": "山田^太郎", "Phonetic": "やまだ^たろう"},
        ),
        (
            b"\\ISO 2022 IR 149",
            b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf",
            {"Alphabetic": "Hong^Gildong", "Ideographic": "洪^吉洞", "Phonetic": "홍^길동"},
        ),
        (
            b"\\ISO 2022 IR 58",
            b"Zhang^XiaoDong=\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1\xb6\xab=",
            {"Alphabetic": "Zhang^XiaoDong", "Ideographic": "张^小东"},
        ),
        (
            b"\\ISO 2022 IR 58",  # one escape sequence for all of the group
            b"Zhang^XiaoDong=\x1b$)A\xd5\xc5^\xd0\xa1\xb6\xab",
            {"Alphabetic": "Zhang^XiaoDong", "Ideographic": "张^小东"},
        ),
        (
            b"ISO 2022 IR 100\\ISO 2022 IR 144\\ISO 2022 IR 126",
            b"Buc^J\xe9r\xf4me=\x1b-F\xc4\xe9\xef^\xe9=\x1b-L\xbb\xee",
            {"Alphabetic": "Buc^Jérôme", "Ideographic": "Διο^é", "Phonetic": "Лю"},
        ),
        (b"\\ISO 2022 IR 159", b"=\x1b$(D\x22\x6f\x1b(B", {"Ideographic": "™"}),
    ],
)
def test_code_extensions_leave_no_escape_sequence(character_set: bytes, value: bytes, expected: dict[str, str]) -> None:
    assert text_of(value, character_set) == [expected]


def test_a_line_ends_a_code_extension() -> None:
    value = b"\x1b$)C\xb1\xe6\r\n\xe9 \x1b$)C\xb5\xbf"
    assert text_of(value, b"ISO 2022 IR 100\\ISO 2022 IR 149", "LT") == ["길\r\né 동"]


@pytest.mark.parametrize(
    ("character_set", "value", "expected"),
    [
        (b"ISO_IR 192", b"M\xfcller^A", "M\N{REPLACEMENT CHARACTER}ller^A"),
        (b"ISO_IR 126", b"\xae^A", "\N{REPLACEMENT CHARACTER}^A"),
        (b"GB18030", b"A\xff", "A\N{REPLACEMENT CHARACTER}"),
        (b"\\ISO 2022 IR 149", b"\x1b$)C\xff^B", "\N{REPLACEMENT CHARACTER}^B"),
        (b"\\ISO 2022 IR 87", b"\x1b$B\x7f\x7f\x1b(B^B", None),
        (b"ISO_IR 999", b"M\xfcller", "Müller"),
        (b"hex", b"M\xfcller", "Müller"),
        (b"", b"M\xfcller", "Müller"),
    ],
)
def test_a_bad_byte_is_replaced_and_never_drops_the_value(
    character_set: bytes, value: bytes, expected: str | None
) -> None:
    tag, found = "00100010", described(element(0x00080005, "CS", character_set), element(0x00100010, "PN", value))
    (name,) = found[tag]["Value"]
    if expected is None:
        assert name["Alphabetic"].endswith("^B")
        assert "\N{REPLACEMENT CHARACTER}" in name["Alphabetic"]
    else:
        assert name["Alphabetic"] == expected


def test_an_item_may_have_a_character_set_of_its_own() -> None:
    item = element(0x00080005, "CS", b"ISO_IR 192") + element(0x00080104, "LO", "Brustkorb ß".encode())
    sequence = struct.pack("<HHI", 0xFFFE, 0xE000, len(item)) + item
    found = described(element(0x00080005, "CS", b"ISO_IR 100"), element(0x00082218, "SQ", sequence))
    assert found["00082218"]["Value"][0]["00080104"]["Value"] == ["Brustkorb ß"]
    assert found["00082218"]["Value"][0]["00080005"]["Value"] == ["ISO_IR 192"]


def test_pydicom_reads_what_keeps_to_the_rules() -> None:
    image = make_dicom(make_image(), WindowCenter=["1.5", "2"], PatientAge="042Y", FrameIncrementPointer=0x00181063)
    found = Dataset.from_json(from_dataset(read_dicom(image, max_bytes=PREFIX_BYTES, kept=None).dataset))
    sent = pydicom.dcmread(BytesIO(image))
    del sent[0x7FE00010]
    assert found == sent


@pytest.mark.needs("shared/cases")
def test_the_cases_say_what_they_hold() -> None:
    def of(name: str) -> dict[str, Any]:
        data = (SHARED_CASES / f"dicom/{name}.dcm").read_bytes()
        return from_dataset(read_dicom(data, max_bytes=PREFIX_BYTES, kept=None).dataset)

    found = of("meta_ds_over_16_chars")
    for tag in ("00280030", "00281050", "00281051", "00281052", "00281053"):
        assert all(isinstance(value, int | float) for value in found[tag]["Value"]), tag
    assert of("meta_uids_leading_zero")["0020000D"]["Value"] == ["1.2.826.0.1.3680043.10.1337.0042.613924"]
    assert len(of("qido_long_name_and_accession")["00100010"]["Value"][0]["Alphabetic"]) > 64
    assert "\N{REPLACEMENT CHARACTER}" in of("meta_bad_utf8_name")["00100010"]["Value"][0]["Alphabetic"]
    assert of("charset_ir58_escape")["00100010"]["Value"] == [
        {"Alphabetic": "Zhang^XiaoDong", "Ideographic": "张^小东"}
    ]
    (table,) = of("bigendian_voi_lut")["00283010"]["Value"]
    assert struct.unpack_from("<H", base64.b64decode(table["00283006"]["InlineBinary"]), 2 * 1000) == (2023,)
