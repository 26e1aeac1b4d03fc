"""Files that break the standard as files of real archives do: what is left out, what is mended, what is refused."""

import re
import struct
import subprocess
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import PIL.Image
import pydicom.charset
import pytest
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.datadict import dictionary_VR
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from shared.deidentification import deidentify
from shared.errors import PermanentError
from shared.imaging.dicom_file import read_dicom
from shared.imaging.header import read_header
from shared.imaging.rendition import make_rendition
from shared.phantoms.encoding import UIDS, TransferSyntax, encode_frame
from shared.vocabulary.flags import Flag
from tests.golden_images import golden_image
from tests.hostile import element, insert
from tests.rendering import chain_of, show
from tests.requirements import REPOSITORY, needs
from tests.synthetic_dicom import MAX_PIXELS, make_dicom, make_image

IMAGE = make_image()
PLAIN = make_dicom(IMAGE, bits=12)
WINDOW = {"WindowCenter": 2000, "WindowWidth": 3000}


def with_value(data: bytes, keyword: str, value: bytes, vr: str | None = None) -> bytes:
    """The file with other bytes for an element that it has, or with one more; in explicit little endian."""
    tag = Tag(keyword)
    vr = vr or str(dictionary_VR(tag)).split(" or ")[0]
    head = struct.pack("<HH", tag.group, tag.element)
    start = 144 + struct.unpack_from("<I", data, 140)[0]
    place = data.find(head, start)
    if place < 0:
        tags = dcmread(BytesIO(data)).keys()  # to iterate over the elements would make pydicom read every value
        following = next(each for each in tags if each > tag)
        place = data.index(struct.pack("<HH", following.group, following.element), start)
        return data[:place] + element(tag, vr, value) + data[place:]
    (length,) = struct.unpack_from("<H", data, place + 6)
    return data[:place] + element(tag, vr, value) + data[place + 8 + length :]


def without(data: bytes, keyword: str) -> bytes:
    dataset = dcmread(BytesIO(data))
    del dataset[keyword]
    buffer = BytesIO()
    dataset.save_as(buffer)
    return buffer.getvalue()


def cleaned(data: bytes) -> bytes:
    return deidentify(data, b"key", max_bytes=4 * MAX_PIXELS)


def flags_of(data: bytes) -> list[Flag]:
    return make_rendition(data, rendition_px=64, max_image_pixels=MAX_PIXELS).facts.flags


def refusal_of(data: bytes) -> PermanentError:
    with pytest.raises(PermanentError) as caught:
        show(data)
    return caught.value


def assert_same_picture(data: bytes, expected: bytes) -> None:
    """Both as it is and de-identified a file shows the same as another."""
    assert np.array_equal(show(data), show(expected))
    assert np.array_equal(show(cleaned(data)), show(expected))


# --- optional elements -----------------------------------------------------------------------------------------------


def test_an_empty_value_behind_a_window_does_no_harm() -> None:
    data = with_value(with_value(PLAIN, "WindowCenter", b"2000\\"), "WindowWidth", b"3000\\")
    assert_same_picture(data, make_dicom(IMAGE, bits=12, **WINDOW))
    assert chain_of(data) == ["window 1 of 1: centre 2000, width 3000 (LINEAR)"]


def test_a_window_that_can_be_read_is_taken_beside_one_that_cannot() -> None:
    data = with_value(with_value(PLAIN, "WindowCenter", b"2000,5\\2000"), "WindowWidth", b"3000,5\\3000 ")
    assert_same_picture(data, make_dicom(IMAGE, bits=12, **WINDOW))
    left_out = [f"{name} cannot be read, left out" for name in ("WindowCenter (0028,1050)", "WindowWidth (0028,1051)")]
    assert chain_of(data) == [*left_out, "window 2 of 2: centre 2000, width 3000 (LINEAR)"]


@pytest.mark.parametrize(
    ("keyword", "value", "vr"),
    [
        ("WindowCenter", b"2048,5", None),
        ("WindowCenter", b"twelve", None),
        ("WindowWidth", b"4096.0.0", None),
        ("WindowWidth", b"\0\0\0", "FL"),
        ("PixelPaddingValue", b"\0\0\0", "US"),
        ("PixelPaddingValue", b"none", "LO"),
        ("RescaleSlope", b"1,0 ", None),
        ("RescaleIntercept", b"- ", None),
        ("PixelSpacing", b"0,2\\0,2 ", None),
        ("ImagerPixelSpacing", b"fine", None),
        ("PixelAspectRatio", b"1:1 ", None),
        ("NumberOfFrames", b"one ", None),
        ("PixelPaddingValue", b"12", "OB"),
    ],
)
def test_an_optional_value_that_cannot_be_read_counts_as_absent_and_is_said_to(
    keyword: str, value: bytes, vr: str | None
) -> None:
    data = with_value(PLAIN, keyword, value, vr)
    if keyword in (pair := ["WindowCenter", "WindowWidth"]):
        data = with_value(data, pair[1 - pair.index(keyword)], b"2000")
    assert_same_picture(data, PLAIN)
    tag = Tag(keyword)
    assert f"{keyword} ({tag.group:04X},{tag.element:04X}) cannot be read, left out" in chain_of(data)
    assert Flag.IRREGULAR_FILE not in flags_of(data)


@pytest.mark.parametrize(
    "keyword",
    [
        "Modality", "BodyPartExamined", "ViewPosition", "BurnedInAnnotation", "VOILUTFunction", "PresentationLUTShape",
        "PresentationIntentType", "PixelIntensityRelationship", "PixelSpacingCalibrationType", "PatientOrientation",
        "StudyDate", "PatientBirthDate", "ViewCodeSequence", "AnatomicRegionSequence",
    ],
)  # fmt: skip
@pytest.mark.parametrize(("value", "vr"), [(b"", None), (b"\x01\x02\x03", "US"), (b"no items at all ", "SQ")])
def test_no_optional_text_or_sequence_makes_a_file_unfit(keyword: str, value: bytes, vr: str | None) -> None:
    data = with_value(PLAIN, keyword, value, vr)
    assert read_header(data, len(data)).height_px == 96
    assert_same_picture(data, PLAIN)


@pytest.mark.parametrize("vr", ["OB", "UN", "UI", "SQ"])
def test_a_character_set_of_another_kind_costs_no_file(vr: str) -> None:
    value = b"" if vr == "SQ" else b"ISO_IR 192"
    assert_same_picture(with_value(PLAIN, "SpecificCharacterSet", value, vr), PLAIN)


# --- required elements -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keyword", "value", "vr", "code"),
    [
        ("Rows", None, None, "not_an_image"),
        ("Columns", None, None, "not_an_image"),
        ("BitsAllocated", None, None, "undecodable_pixel_data"),
        ("Rows", b"\x60\0\0", None, "malformed_dicom"),
        ("Columns", b"80,0", "DS", "malformed_dicom"),
        ("Rows", b"96", "OB", "malformed_dicom"),
        ("BitsAllocated", b"\x10\0\0", None, "malformed_dicom"),
        ("BitsStored", b"twelve", "LO", "malformed_dicom"),
        ("HighBit", b"\x0b", None, "malformed_dicom"),
        ("PixelRepresentation", b"none", "CS", "malformed_dicom"),
        ("SamplesPerPixel", b"\x01\0\0", None, "malformed_dicom"),
        ("PhotometricInterpretation", b"GREYSCALE ", None, "malformed_dicom"),
        ("PhotometricInterpretation", b"\x01\x02\x03", "US", "malformed_dicom"),
        ("BitsStored", b"\x11\0", None, "undecodable_pixel_data"),
        ("HighBit", b"\x10\0", None, "undecodable_pixel_data"),
    ],
)
def test_a_required_element_that_is_missing_or_unreadable_is_named(
    keyword: str, value: bytes | None, vr: str | None, code: str
) -> None:
    data = without(PLAIN, keyword) if value is None else with_value(PLAIN, keyword, value, vr)
    refused = refusal_of(data)
    assert refused.code == code
    tag = Tag(keyword)
    assert f"{keyword} ({tag.group:04X},{tag.element:04X})" in refused.detail


def test_an_unknown_transfer_syntax_is_named() -> None:
    refused = refusal_of(PLAIN.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.9.9\0"))
    assert refused.code == "unsupported_transfer_syntax"
    assert "TransferSyntaxUID (0002,0010)" in refused.detail


def test_a_broken_table_is_named() -> None:
    refused = refusal_of(insert(PLAIN, element(0x00283010, "SQ", b"no items at all "), 0x7FE00010))
    assert (refused.code, refused.detail) == ("malformed_dicom", "VOILUTSequence (0028,3010) cannot be read.")


# --- how elements are encoded ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("charset", [None, b"ISO_IR 100", b"ISO_IR 6", b"UTF8", b"nobody knows it "])
@pytest.mark.parametrize("said", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
def test_a_data_set_is_read_as_it_is_encoded_not_as_its_syntax_says(said: str, charset: bytes | None) -> None:
    """A value of 8 bytes looks like an element's head, and one of 4 like a length: neither is taken for it."""
    is_explicit = said == ImplicitVRLittleEndian
    data = make_dicom(IMAGE, bits=12, syntax=ExplicitVRLittleEndian if is_explicit else ImplicitVRLittleEndian)
    if charset is not None:
        head = struct.pack("<HH", 8, 5)
        head += b"CS" + struct.pack("<H", len(charset)) if is_explicit else struct.pack("<I", len(charset))
        place = data.index(b"\x08\0\x16\0", 132)
        data = data[:place] + head + charset + data[place:]
    (meta_bytes,) = struct.unpack_from("<I", data, 140)
    padded = said.encode() + b"\0" * (len(said) % 2)
    meta = element(0x00020010, "UI", padded)
    data = data[:132] + element(0x00020000, "UL", struct.pack("<I", len(meta))) + meta + data[144 + meta_bytes :]
    assert_same_picture(data, PLAIN)


def test_python_looks_for_no_character_set_that_a_file_names(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_up: list[str] = []
    monkeypatch.setattr("pydicom.charset.codecs.lookup", looked_up.append)
    for name in (b"ABCD", b"ABCDEFGH", b"ISO_IR 9999 ", b"ISOabc", b"ISO 2022 IR 6\\XYZW"):
        data = insert(PLAIN, element(0x00080005, "CS", name), 0x00080016)
        assert read_header(data, len(data))
        described = read_dicom(data, max_bytes=2**20, kept=None).dataset
        assert described.PatientName == "Secret^Patient"
    assert not looked_up
    assert pydicom.charset.python_encoding["utf8"] == "utf8"


@pytest.mark.parametrize("vr", [b"??", b"\0\0", b"  ", b"lo", b"XX"])
@pytest.mark.parametrize("tag", [0x00091001, 0x00100020])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_an_element_of_an_unknown_vr_costs_no_other(vr: bytes, tag: int, syntax: str) -> None:
    order = "<" if syntax == ExplicitVRLittleEndian else ">"
    # Longer than the bytes of a value and a VR would be as a length of 32 bits.
    data = make_dicom(make_image(600, 600), bits=12, syntax=syntax)
    place = data.index(struct.pack(f"{order}HH", 0x0028, 0x0002), 132)
    head = struct.pack(f"{order}HH2sH", tag >> 16, tag & 0xFFFF, vr, 4)
    odd = data[:place] + head + b"abcd" + data[place:]
    assert_same_picture(odd, data)
    described = read_dicom(odd, max_bytes=2**20, kept=None).dataset
    assert described[tag].value in (b"abcd", "abcd")


def test_an_element_that_a_writer_put_in_implicit_vr_is_read() -> None:
    data = insert(PLAIN, struct.pack("<HHI", 0x0018, 0x1164, 8) + b"0.25\\.25", 0x00280002)
    assert make_rendition(data, rendition_px=64, max_image_pixels=MAX_PIXELS).facts.spacing
    assert_same_picture(data, PLAIN)


@pytest.mark.parametrize("kept_bytes", [0, 1, 3])
def test_a_header_that_ends_within_an_element_is_malformed_and_not_another_kind_of_object(kept_bytes: int) -> None:
    place = PLAIN.index(b"\x10\0\x10\0PN")
    refused = refusal_of(PLAIN[: place + 8 + kept_bytes])
    assert (refused.code, refused.detail) == ("malformed_dicom", "The DICOM header ends within an element.")


# --- pixels ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("excess", [b"\0" * 160, b"\0" * 4096, b"\xff" * 100_000, b"\0"])
@pytest.mark.parametrize("syntax", ["explicit", "encapsulated", "deflated-frame"])
def test_bytes_behind_a_frame_are_padding(excess: bytes, syntax: TransferSyntax) -> None:
    if syntax == "explicit":
        dataset = dcmread(BytesIO(PLAIN))
        dataset.PixelData = dataset.PixelData + excess + b"\0" * (len(excess) % 2)
        buffer = BytesIO()
        dataset.save_as(buffer)
        data = buffer.getvalue()
    elif syntax == "encapsulated":
        data = make_dicom(IMAGE, bits=12, syntax=UIDS[syntax], frame=IMAGE.astype("<u2").tobytes() + excess)
    else:
        excess = excess[: IMAGE.nbytes]
        deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        frame = deflater.compress(IMAGE.astype("<u2").tobytes() + excess) + deflater.flush()
        data = make_dicom(IMAGE, bits=12, syntax=UIDS[syntax], frame=frame)
    assert_same_picture(data, PLAIN)


@pytest.mark.parametrize("rows", [95, 64])
def test_more_rows_than_the_header_says_are_no_padding(rows: int) -> None:
    data = with_value(PLAIN, "Rows", struct.pack("<H", rows))
    refused = refusal_of(data)
    assert (refused.code, "PixelData" in refused.detail) == ("undecodable_pixel_data", True)
    with pytest.raises(PermanentError, match="PixelData"):
        cleaned(data)


@pytest.mark.parametrize("high_bit", [0, 7, 10])
def test_a_high_bit_below_the_stored_bits_is_mended_and_flagged(high_bit: int) -> None:
    data = make_dicom(IMAGE, bits=12, HighBit=high_bit)
    assert_same_picture(data, PLAIN)
    for each in (data, cleaned(data)):
        assert chain_of(each)[0] == "HighBit (0028,0102) is below BitsStored - 1, read as 11"
        assert Flag.IRREGULAR_FILE in flags_of(each)


def test_of_a_codestream_the_high_bit_says_nothing() -> None:
    frame = encode_frame(IMAGE, 12, "jpeg-lossless")
    data = make_dicom(IMAGE, bits=12, syntax=UIDS["jpeg-lossless"], frame=frame, HighBit=0)
    assert_same_picture(data, PLAIN)
    assert Flag.IRREGULAR_FILE not in flags_of(data)


@pytest.mark.parametrize(
    ("written", "term"),
    [
        (b"monochrome1 ", "MONOCHROME1"),
        (b"Monochrome2\0", "MONOCHROME2"),
        (b"MONOCHROME 1", "MONOCHROME1"),
        (b"mono_chrome_2 ", "MONOCHROME2"),
    ],
)
def test_a_photometric_term_is_read_however_it_is_written_and_flagged(written: bytes, term: str) -> None:
    data = with_value(PLAIN, "PhotometricInterpretation", written)
    assert_same_picture(data, make_dicom(IMAGE, bits=12, PhotometricInterpretation=term))
    assert f"PhotometricInterpretation (0028,0004) is not written as the standard has it, read as {term}" in chain_of(
        data
    )
    assert Flag.IRREGULAR_FILE in flags_of(data)


@pytest.mark.parametrize("written", [b" MONOCHROME1", b"MONOCHROME1\0", b"MONOCHROME1\0\0 "])
def test_padding_of_a_photometric_term_is_no_matter(written: bytes) -> None:
    data = with_value(PLAIN, "PhotometricInterpretation", written)
    assert_same_picture(data, make_dicom(IMAGE, bits=12, PhotometricInterpretation="MONOCHROME1"))
    assert Flag.IRREGULAR_FILE not in flags_of(data)


@pytest.mark.parametrize("written", [b"rgb ", b"YBR_FULL_422", b"palette color ", b"PALETTE_COLOR "])
def test_a_colour_term_is_one_however_it_is_written(written: bytes) -> None:
    assert refusal_of(with_value(PLAIN, "PhotometricInterpretation", written)).code == "colour_image"


# --- end markers -----------------------------------------------------------------------------------------------------


def frame_in(syntax: TransferSyntax) -> tuple[NDArray[np.integer], int, bytes]:
    """An image, its bits, and a frame of which the last byte of the data is no zero, as padding would be."""
    bits = 8 if syntax == "jpeg-baseline" else 12
    for width_px in range(80, 100):
        image = golden_image(bits)[:96, :width_px]
        frame = bytes(encode_frame(image, bits, syntax))
        if frame[-3]:
            return image, bits, frame
    raise AssertionError


@pytest.mark.parametrize(
    "syntax",
    ["jpeg-baseline", "jpeg-extended", "jpeg-lossless", "jpeg-lossless-sv4", "jpeg-ls", "jpeg-2000", "jpeg-2000-lossy",
     "htj2k", "htj2k-lossy"],
)  # fmt: skip
def test_a_frame_that_lacks_its_end_marker_alone_is_shown_and_flagged(syntax: TransferSyntax) -> None:
    image, bits, frame = frame_in(syntax)
    whole = make_dicom(image, bits=bits, syntax=UIDS[syntax], frame=frame)
    for missing in (1, 2):
        for padding in (b"", b"\0\0"):
            if missing == 1 and padding:
                continue
            data = make_dicom(image, bits=bits, syntax=UIDS[syntax], frame=frame[:-missing] + padding)
            assert_same_picture(data, whole)
            for each in (data, cleaned(data)):
                assert chain_of(each)[0] == "the compressed stream lacks its end marker, and nothing else"
                assert Flag.IRREGULAR_FILE in flags_of(each)
    for missing in (4, 8, 50, len(frame) // 2):
        cut = make_dicom(image, bits=bits, syntax=UIDS[syntax], frame=frame[:-missing])
        assert refusal_of(cut).code == "undecodable_pixel_data", missing
        with pytest.raises(PermanentError):
            show(cleaned(cut))


@pytest.mark.parametrize("interval", [{"restart_marker_rows": 1}, {"restart_marker_blocks": 7}], ids=str)
def test_a_jpeg_that_ends_before_a_restart_marker_lacks_more_than_its_end_marker(interval: dict[str, int]) -> None:
    image = golden_image(8)
    buffer = BytesIO()
    PIL.Image.fromarray(image).save(buffer, "JPEG", **interval)
    frame = buffer.getvalue()
    syntax = UIDS["jpeg-baseline"]
    assert_same_picture(
        make_dicom(image, syntax=syntax, frame=frame[:-2]), make_dicom(image, syntax=syntax, frame=frame)
    )
    restarts = [found.start() for found in re.finditer(rb"\xff[\xd0-\xd7]", frame)]
    assert len(restarts) > 3
    for place in (restarts[0], restarts[len(restarts) // 2], restarts[-1]):
        for kept_bytes in (place, place + 1, place + 2):
            cut = make_dicom(image, syntax=syntax, frame=frame[:kept_bytes])
            assert refusal_of(cut).code == "undecodable_pixel_data", kept_bytes


def test_of_a_jpeg_of_several_scans_nothing_tells_that_none_is_missing() -> None:
    frame = (REPOSITORY / "tests/jpeg_samples/progressive-8.jpg").read_bytes()
    end = frame.rindex(b"\xff\xd9")
    header = read_header(frame, len(frame))
    blank = np.zeros((header.height_px, header.width_px), np.uint8)
    syntax = "1.2.840.10008.1.2.4.55"
    assert show(make_dicom(blank, syntax=syntax, frame=frame)).any()
    assert refusal_of(make_dicom(blank, syntax=syntax, frame=frame[:end])).code == "undecodable_pixel_data"


# --- identity, and files for others ----------------------------------------------------------------------------------


@pytest.mark.parametrize("uid", [b"1.2.3\0", b"1.2.3 ", b"1.02.003\0", b"1.2.a-b_c ", b"0"])
def test_uids_with_padding_leading_zeros_or_letters_are_taken_as_they_are(uid: bytes) -> None:
    data = with_value(PLAIN, "StudyInstanceUID", uid)
    header = read_header(data, len(data))
    assert (header.study_instance_uid, header.invalid_uids) == (uid.decode().strip(" \0"), ())


@pytest.mark.parametrize("keyword", ["SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"])
@pytest.mark.parametrize("uid", [b"9" * 65, b"1.2/3 ", b"1.2 3", b"1.2^3 ", b"..", b".1"])
def test_a_uid_that_is_none_is_told_from_one_that_is_missing(keyword: str, uid: bytes) -> None:
    data = with_value(PLAIN, keyword, uid)
    assert read_header(data, len(data)).invalid_uids == (keyword,)
    data = with_value(PLAIN, keyword, b"")
    assert read_header(data, len(data)).invalid_uids == ()


@pytest.mark.parametrize(
    "odd",
    [
        with_value(with_value(PLAIN, "WindowCenter", b"2000,5\\2000"), "WindowWidth", b"3000,5\\3000 "),
        with_value(PLAIN, "PhotometricInterpretation", b"monochrome1 "),
        with_value(PLAIN, "HighBit", b"\0\0"),
        PLAIN + b"\0" * 4096,
        insert(PLAIN, element(0x00091001, "LO", b"abcd").replace(b"LO", b"??"), 0x00280002),
    ],
)
def test_a_de_identified_odd_file_is_one_that_others_read(odd: bytes, tmp_path: Path) -> None:
    (path := tmp_path / "clean.dcm").write_bytes(cleaned(odd))
    said = subprocess.run([needs("dcmdump"), str(path)], capture_output=True, text=True, timeout=60)
    assert (said.returncode, said.stderr) == (0, "")
    assert "(0002,0000)" in said.stdout
    assert "(7fe0,0010)" in said.stdout
