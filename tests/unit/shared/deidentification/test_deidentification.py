"""De-identification: nothing planted survives, the pixels do, and the same original always gives the same bytes."""

import re
from contextlib import suppress
from io import BytesIO

import numpy as np
import PIL.Image
import PIL.PngImagePlugin
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from shared.deidentification import deidentify
from shared.errors import PermanentError, UndecodablePixelData
from shared.imaging.facts import PixelSpacing, SpacingSource
from shared.imaging.rendition import make_rendition
from tests.planted import IMAGE, TRACES, make_planted
from tests.synthetic_dicom import MAX_PIXELS, make_dicom

KEY, OTHER_KEY = b"k" * 32, b"o" * 32
SYNTAXES = [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]


def hidden(data: bytes, key: bytes = KEY) -> bytes:
    return deidentify(data, key, max_bytes=2**28)


def read(data: bytes) -> Dataset:
    return pydicom.dcmread(BytesIO(data))


PLANTED_FILE = make_planted()


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_nothing_that_the_profile_lists_survives(syntax: str) -> None:
    original = make_planted(syntax)
    assert syntax == DeflatedExplicitVRLittleEndian or TRACES.search(original)
    data = hidden(original)
    file = read(data)
    plain = BytesIO()
    file.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian  # so that what is deflated is searched as well
    if syntax == DeflatedExplicitVRLittleEndian:
        file.save_as(plain)
    assert not TRACES.search(data + plain.getvalue())
    assert data[:128] == bytes(128)
    assert not [element for element in file.iterall() if element.tag.is_private or element.tag.group & 0xFF00 == 0x6000]
    assert file.PatientIdentityRemoved == "YES"
    assert "Basic" in file.DeidentificationMethod
    assert file.DeidentificationMethodCodeSequence[0].CodeValue == "113100"
    assert file.AnatomicRegionSequence[0].CodeMeaning == "Chest"


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_pixels_and_syntax_are_untouched(syntax: str) -> None:
    original = make_planted(syntax, WindowCenter="2000.5", WindowWidth="900", ImagerPixelSpacing=[0.2, 0.1])
    before, after = read(original), read(hidden(original))
    assert after.PixelData == before.PixelData
    assert after.file_meta.TransferSyntaxUID == syntax
    first, second = (
        make_rendition(data, rendition_px=64, max_image_pixels=MAX_PIXELS) for data in (original, hidden(original))
    )
    assert first == second, "the picture, and what is known of it"
    assert second.facts.spacing == PixelSpacing(row_mm=0.2, column_mm=0.1, source=SpacingSource.DETECTOR)


def test_the_same_file_gives_the_same_bytes_and_another_key_others() -> None:
    original = make_planted()
    assert hidden(original) == hidden(original) != hidden(original, OTHER_KEY)


def test_uids_stay_consistent_and_those_of_standards_stay() -> None:
    first, second = (read(hidden(make_planted(SOPInstanceUID=uid))) for uid in ("1.2.3.4", "1.2.3.5"))
    assert first.StudyInstanceUID == second.StudyInstanceUID != "1.2.3"
    assert first.SOPInstanceUID != second.SOPInstanceUID
    for item in (second, second.AnatomicRegionSequence[0]):
        [reference] = item.ReferencedImageSequence
        assert reference.ReferencedSOPInstanceUID == first.SOPInstanceUID
        assert reference.ReferencedSOPClassUID == first.SOPClassUID == read(make_planted()).SOPClassUID
    assert first.file_meta.MediaStorageSOPInstanceUID == first.SOPInstanceUID
    assert re.fullmatch(r"2\.25\.(0|[1-9]\d{0,38})", first.StudyInstanceUID)


def test_patients_stay_apart_and_together() -> None:
    def patient(patient_id: str, key: bytes = KEY) -> str:
        return str(read(hidden(make_dicom(IMAGE, PatientID=patient_id), key)).PatientID)

    assert patient("ab 12") == patient("ab 12 ") != patient("ab 13")
    assert patient("ab 12") != patient("ab 12", OTHER_KEY)
    assert patient("") == ""


def test_burned_in_annotation_is_kept_and_overlays_in_the_pixels_count_as_one() -> None:
    assert read(hidden(make_dicom(IMAGE, BurnedInAnnotation="YES"))).BurnedInAnnotation == "YES"
    drawn_upon = read(make_dicom(IMAGE, BurnedInAnnotation="NO"))
    drawn_upon.add_new(0x60000102, "US", 12)
    buffer = BytesIO()
    drawn_upon.save_as(buffer)
    assert read(hidden(buffer.getvalue())).BurnedInAnnotation == "YES"


def explicit(tag: bytes, vr: bytes, value: bytes) -> bytes:
    return tag + vr + len(value).to_bytes(2, "little") + value


@pytest.mark.parametrize(
    "broken",
    [
        explicit(b"\x10\x00\x10\x00", b"US", b"PLANTED!"),  # a name in a wrong VR
        explicit(b"\x10\x00\x20\x00", b"FD", b"PLANTED!"),
        explicit(b"\x18\x00\x60\x00", b"LO", b"PLANTED!"),  # tube voltage
        explicit(b"\x18\x00\x60\x00", b"DS", b"PLANTED!"),
        explicit(b"\x08\x00\x70\x00", b"LO", b"x" * 60 + b"PLANTED!"),  # longer than it may be
        # An element that has swallowed the one behind it.
        explicit(b"\x08\x00\x70\x00", b"LO", b"x " + explicit(b"\x10\x00\x10\x00", b"PN", b"PLANTED!")),
        explicit(b"\x28\x00\x34\x00", b"US", explicit(b"\x10\x00\x10\x00", b"PN", b"PLANTED!")),
        explicit(b"\x10\x00\x01\x11", b"LO", b"PLANTED!"),  # of the patient's group, and unknown
        explicit(b"\x28\x00\x99\x99", b"LO", b"PLANTED!"),  # unknown
    ],
)
def test_what_is_not_as_it_should_be_goes(broken: bytes) -> None:
    data = make_dicom(IMAGE, PatientName=None)
    place = data.index(b"\x20\x00\x0d\x00UI")
    data = hidden(data[:place] + broken + data[place:])
    assert not TRACES.search(data)
    assert read(data).PixelData == IMAGE.tobytes()


def test_what_follows_the_pixels_goes() -> None:
    file = read(make_dicom(IMAGE))
    file.PixelData = file.PixelData + b"PLANTED!"
    buffer = BytesIO()
    file.save_as(buffer)
    data = hidden(buffer.getvalue() + b"PLANTED!")
    assert not TRACES.search(data)
    assert read(data).PixelData == IMAGE.tobytes()


@settings(max_examples=300)
@given(
    st.integers(132, len(PLANTED_FILE)),
    st.lists(st.tuples(st.integers(132, 4000), st.binary(max_size=4), st.integers(0, 4)), max_size=3),
)
def test_a_broken_file_is_refused_or_leaks_no_patient(byte_count: int, changes: list[tuple[int, bytes, int]]) -> None:
    """What is wrong in one element may leave a stretch of another, but never the patient's elements."""
    data = PLANTED_FILE[:byte_count]
    for position, inserted, removed in changes:
        data = data[:position] + inserted + data[position + removed :]
    with suppress(PermanentError):
        file = read(hidden(data))
        assert not {"PatientBirthDate", "OtherPatientIDs", "PatientAddress"} & {
            element.keyword for element in file.iterall() if element.value
        }


# --- PNG and JPEG ----------------------------------------------------------------------------------------------------


def picture(kind: str, mode: str = "L", **options: object) -> bytes:
    pixels = np.random.default_rng(3).integers(0, 255, (90, 70, 3), np.uint8)
    buffer = BytesIO()
    PIL.Image.fromarray(pixels).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def planted_exif(turn: int) -> PIL.Image.Exif:
    exif = PIL.Image.Exif()
    exif[0x0112], exif[0x010E], exif[0x013B] = turn, "PLANTED", "PLANTED"
    return exif


def planted_text() -> PIL.PngImagePlugin.PngInfo:
    text = PIL.PngImagePlugin.PngInfo()
    text.add_text("Patient", "PLANTED")
    text.add_text("Patient", "PLANTED", zip=True)
    text.add_itxt("Patient", "PLANTED")
    return text


@pytest.mark.parametrize("mode", ["L", "I;16", "RGB", "P"])
def test_a_png_keeps_its_pixels_and_no_text(mode: str) -> None:
    original = picture("PNG", mode, pnginfo=planted_text(), icc_profile=b"PLANTED", exif=planted_exif(1))
    data = hidden(original + b"PLANTED")
    assert TRACES.search(original)
    assert not TRACES.search(data)
    assert len(re.findall(rb"tEXt|zTXt|iTXt|iCCP|eXIf", data)) == 0
    assert np.array_equal(np.asarray(PIL.Image.open(BytesIO(data))), np.asarray(PIL.Image.open(BytesIO(original))))


@pytest.mark.parametrize("turn", [1, 3, 6])
@pytest.mark.parametrize(("mode", "options"), [("L", {}), ("RGB", {"progressive": True}), ("RGB", {"keep_rgb": True})])
def test_a_jpeg_keeps_its_pixels_its_turn_and_no_text(turn: int, mode: str, options: dict[str, bool]) -> None:
    original = picture(
        "JPEG", mode, exif=planted_exif(turn), comment=b"PLANTED", icc_profile=b"PLANTED" * 20_000, **options
    )
    data = hidden(original + b"PLANTED")
    assert TRACES.search(original)
    assert not TRACES.search(data)
    before, after = PIL.Image.open(BytesIO(original)), PIL.Image.open(BytesIO(data))
    assert np.array_equal(np.asarray(after), np.asarray(before))
    assert after.getexif().get(0x0112, 1) == turn


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("byte_count", [30, 300, -3])
def test_a_picture_that_ends_too_early_is_refused(kind: str, byte_count: int) -> None:
    with pytest.raises(UndecodablePixelData):
        hidden(picture(kind)[:byte_count])
