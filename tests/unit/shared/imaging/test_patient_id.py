"""The one element that tells patients apart, read only where that is asked for."""

import pytest

from shared.imaging.dicom_file import read_dicom, read_patient_id
from tests.synthetic_dicom import make_dicom, make_image


@pytest.mark.parametrize(("stored", "found"), [("P-17", "P-17"), (" P-17 ", "P-17"), ("", None), ("  ", None)])
def test_the_patient_id_is_read(stored: str, found: str | None) -> None:
    assert read_patient_id(make_dicom(make_image(), PatientID=stored)) == found


def test_a_file_without_one_has_none() -> None:
    assert read_patient_id(make_dicom(make_image())) is None
    assert read_patient_id(b"\x89PNG\r\n\x1a\n") is None
    assert read_patient_id(b"") is None


def test_nobody_else_gets_to_see_it() -> None:
    file = read_dicom(make_dicom(make_image(), PatientID="P-17"), max_bytes=2**20)
    assert "PatientID" not in file.dataset
    assert "PatientName" not in file.dataset
