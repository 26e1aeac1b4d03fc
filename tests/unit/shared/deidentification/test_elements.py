"""De-identification keeps known elements with known values: text in any other place of a data set is gone."""

import re
from io import BytesIO

import numpy as np
import pydicom
import pytest
from dicomanonymizer.dicom_anonymization_databases import dicomfields_2026c as table
from numpy.typing import NDArray
from pydicom.datadict import keyword_for_tag, tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from shared.deidentification import deidentify
from shared.deidentification.rules import MEANINGS, RULES, Items, Plain
from shared.imaging.rendition import make_rendition
from tests.planted import IMAGE
from tests.planted_everywhere import EVERYWHERE, MARK, PIXEL_MODULE, make_planted_everywhere
from tests.synthetic_dicom import MAX_PIXELS, make_dicom

SYNTAXES = [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]
#: What is written whatever the original says.
ADDED = {
    "PatientIdentityRemoved",
    "DeidentificationMethod",
    "DeidentificationMethodCodeSequence",
    "LongitudinalTemporalInformationModified",
    "PixelData",
}


def hidden(data: bytes) -> bytes:
    return deidentify(data, b"k" * 32, max_bytes=2**28)


def read(data: bytes) -> Dataset:
    return pydicom.dcmread(BytesIO(data))


def plain(data: bytes) -> bytes:
    """A file's bytes, inflated where they are deflated."""
    file = read(data)
    if file.file_meta.TransferSyntaxUID == DeflatedExplicitVRLittleEndian:
        file.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        buffer = BytesIO()
        file.save_as(buffer)
        return data + buffer.getvalue()
    return data


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_nothing_planted_in_any_element_survives(syntax: str) -> None:
    original = make_planted_everywhere(syntax)
    before = read(original)
    assert {tag for tag in EVERYWHERE if tag not in before} == set()
    assert syntax != ExplicitVRLittleEndian or sum(tag.is_private for tag in before.keys()) > 10_000  # noqa: SIM118
    data = hidden(original)
    found = MARK.search(plain(data))
    assert not found, plain(data)[max(0, found.start() - 40) : found.end() + 40]
    file = read(data)
    assert {element.keyword for element in file} <= set(RULES) | ADDED
    assert file.PixelData == before.PixelData
    assert data[:128] == bytes(128)


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_the_result_is_a_part_10_file_with_its_own_meta_information(syntax: str) -> None:
    data = hidden(make_planted_everywhere(syntax))
    file = read(data)
    meta = file.file_meta
    assert data[132:140] == b"\x02\0\0\0UL\4\0"
    assert meta.FileMetaInformationGroupLength == len(data[144:]) - len(data[144:].split(b"CARINA", 1)[1])
    assert meta.MediaStorageSOPInstanceUID == file.SOPInstanceUID
    assert meta.TransferSyntaxUID == syntax
    assert {element.keyword for element in meta} == {
        "FileMetaInformationGroupLength",
        "FileMetaInformationVersion",
        "MediaStorageSOPClassUID",
        "MediaStorageSOPInstanceUID",
        "TransferSyntaxUID",
        "ImplementationClassUID",
        "ImplementationVersionName",
    }


def without_uids(pixels: NDArray[np.uint16]) -> bytes:
    file = read(make_dicom(pixels))
    del file.SOPInstanceUID, file.SOPClassUID, file.StudyInstanceUID
    buffer = BytesIO()
    file.save_as(buffer)
    return buffer.getvalue()


def test_a_file_without_uids_gets_what_part_10_wants() -> None:
    first, again, other = (read(hidden(without_uids(pixels))) for pixels in (IMAGE, IMAGE, IMAGE + 1))
    assert first.SOPInstanceUID == again.SOPInstanceUID != other.SOPInstanceUID
    assert first.SOPInstanceUID.startswith("2.25.")
    assert first.SOPClassUID.name == "Secondary Capture Image Storage"
    assert "StudyInstanceUID" not in first


def test_elements_that_a_picture_needs_stay_as_they_are() -> None:
    kept = {
        "Modality": "DX",
        "BodyPartExamined": "CHEST",
        "ViewPosition": "PA",
        "ImageLaterality": "U",
        "PatientOrientation": ["L", "F"],
        "PresentationIntentType": "FOR PRESENTATION",
        "WindowCenter": ["2000.25", "1e3"],
        "WindowWidth": [900, 1],
        "VOILUTFunction": "SIGMOID",
        "RescaleSlope": "0.12345678901234",
        "RescaleIntercept": "-1024",
        "PixelPaddingValue": 4095,
        "PixelSpacing": [0.143, 0.143],
        "ImagerPixelSpacing": ["0.2", ".1"],
        "PixelAspectRatio": [1, 2],
        "KVP": "120",
        "ExposureIndex": "312.5",
        "SeriesNumber": 3,
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.1.1",
    }
    original = make_dicom(IMAGE, **kept)
    before, after = read(original), read(hidden(original))
    for keyword in kept:
        assert after[keyword].value == before[keyword].value, keyword
    first, second = (
        make_rendition(each, rendition_px=64, max_image_pixels=MAX_PIXELS) for each in (original, hidden(original))
    )
    assert first == second


@pytest.mark.parametrize("text", ["10.12345678901234", "-10.1234567890123", "100.1234567890123", "-0.123456789012345"])
def test_a_number_that_is_written_too_long_stays_the_same_number(text: str) -> None:
    """Some writers use more than the 16 characters that a decimal string may have."""
    original = make_dicom(IMAGE, RescaleIntercept="-1.2345678901234")
    padded = text.encode() + b" " * (len(text) % 2)
    longer = original.replace(b"DS\x10\0-1.2345678901234", b"DS%c\0%s" % (len(padded), padded))
    assert longer != original
    assert float(read(hidden(longer)).RescaleIntercept) == pytest.approx(float(text), rel=1e-12)


def coded(value: str, scheme: str, meaning: str) -> Sequence:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return Sequence([item])


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("BodyPartExamined", "CHEST SMITH"),
        ("ViewPosition", "SMITH"),
        ("Modality", "SMITH"),
        ("ImageType", ["SMITH", "PRIMARY"]),
        ("SeriesNumber", "19370704"),
        ("AcquisitionContextSequence", coded("SMITH", "SMITH", "SMITH")),
        ("KVP", "19370704"),
        ("PatientOrientation", "SMITH"),
        ("RescaleType", "SMITH"),
    ],
)
def test_a_kept_element_loses_a_value_that_it_cannot_have(keyword: str, value: object) -> None:
    assert not read(hidden(make_dicom(IMAGE, **{keyword: value}))).get(keyword)


def test_terms_that_follow_an_unknown_one_go_with_it() -> None:
    image_type = ["ORIGINAL", "PRIMARY", "", "SMITH"]
    assert list(read(hidden(make_dicom(IMAGE, ImageType=image_type))).ImageType) == ["ORIGINAL", "PRIMARY"]
    assert read(hidden(make_dicom(IMAGE, BodyPartExamined="Chest"))).BodyPartExamined == "CHEST"
    assert (
        read(hidden(make_dicom(IMAGE, LossyImageCompressionRatio=["7.5", "19370704"]))).LossyImageCompressionRatio
        == 7.5
    )


def test_a_known_code_gets_our_meaning_and_an_unknown_one_goes() -> None:
    view = read(hidden(make_dicom(IMAGE, ViewCodeSequence=coded("399348003", "SCT", "SMITH")))).ViewCodeSequence[0]
    assert (view.CodeValue, view.CodingSchemeDesignator) == ("399348003", "SCT")
    assert view.CodeMeaning == MEANINGS["399348003"] == "antero-posterior"
    no_code = Sequence([Dataset()])
    no_code[0].LongCodeValue = no_code[0].CodeMeaning = "SMITH"
    assert b"SMITH" not in hidden(make_dicom(IMAGE, ViewCodeSequence=no_code))
    for value in ("SMITH", "399348003 SMITH", ""):
        assert not read(hidden(make_dicom(IMAGE, ViewCodeSequence=coded(value, "99SMITH", "SMITH")))).ViewCodeSequence


def test_instance_uids_are_replaced_also_where_they_are_registered_ones() -> None:
    file = read(hidden(make_dicom(IMAGE, StudyInstanceUID=ExplicitVRLittleEndian, SOPClassUID="1.2.3.4.19370704")))
    assert file.StudyInstanceUID.startswith("2.25.")
    assert file.SOPClassUID.startswith("2.25.")


def voi_table(data: bytes, *, vr: str = "OW", count: int = 256) -> Sequence:
    item = Dataset()
    item.add_new(0x00283002, "US", [count, 0, 8])
    item.LUTExplanation = "SMITH"
    item.add_new(0x00283006, vr, data)
    return Sequence([item])


@pytest.mark.parametrize("data", [bytes(range(256)), np.arange(256, dtype="<u2").tobytes()])
def test_a_table_keeps_its_entries_and_nothing_behind_them(data: bytes) -> None:
    original = make_dicom(IMAGE, VOILUTSequence=voi_table(data + b"SMITH!" * (len(data) == 512)))
    after = hidden(original)
    assert b"SMITH" not in after
    first, second = (make_rendition(each, rendition_px=64, max_image_pixels=MAX_PIXELS) for each in (original, after))
    assert first == second


def test_a_table_that_cannot_be_read_goes() -> None:
    original = make_dicom(IMAGE, VOILUTSequence=voi_table(b"SMITH!"), WindowCenter=2000, WindowWidth=900)
    assert b"SMITH" not in hidden(original)


def test_no_element_that_the_profile_removes_is_kept() -> None:
    listed = {keyword_for_tag(tag[0] << 16 | tag[1]) for tag in table.ALL_TAGS if len(tag) == 2}
    emptied, by_reference = {"AcquisitionContextSequence"}, {"ReferencedImageSequence", "SourceImageSequence"}
    kept = {keyword for keyword, rule in RULES.items() if not isinstance(rule, Plain)}
    assert kept & listed == by_reference | emptied
    assert RULES["AcquisitionContextSequence"] == Items({})
    assert all(tag_for_keyword(keyword) is not None for keyword in RULES)
    assert set(RULES) >= PIXEL_MODULE


def test_meanings_are_texts_that_name_nobody() -> None:
    assert all(re.fullmatch(r"[A-Za-z0-9 ,()'/-]{2,64}", meaning) for meaning in MEANINGS.values())
