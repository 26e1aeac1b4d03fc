"""DICOM files with something telling in every element that PS3.15's Basic Profile lists."""

import re
from io import BytesIO

import pydicom
from dicomanonymizer.dicom_anonymization_databases import dicomfields_2026c as table
from pydicom.datadict import dictionary_has_tag, dictionary_keyword, dictionary_VR
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian

from tests.synthetic_dicom import make_dicom, make_image

IMAGE = make_image()
#: By value representation: text that names somebody, and that can be searched for.
PLANTED = {
    "AE": "PLANTED", "AS": "077Y", "CS": "PLANTED", "DA": "19370704", "DT": "19370704101112", "LO": "PLANTED",
    "LT": "PLANTED", "PN": "PLANTED^NAME", "SH": "PLANTED", "ST": "PLANTED", "TM": "101112", "UC": "PLANTED",
    "UI": "1.2.19370704.7", "UR": "http://planted", "UT": "PLANTED", "OB": b"PLANTED!", "UN": b"PLANTED!",
    "DS": "19370704", "IS": "19370704",
}  # fmt: skip
TRACES = re.compile(rb"planted|19370704|077Y|101112", re.IGNORECASE)


def plant(dataset: Dataset) -> None:
    """Put something telling into every element that the profile's table lists."""
    for tag in (tag for tag in table.ALL_TAGS if len(tag) == 2 and tag[0] > 0x0002):
        if dictionary_has_tag(tag) and dictionary_keyword(tag) not in dataset:
            vr = dictionary_VR(tag)
            if vr == "SQ":
                item = Dataset()
                item.PatientName = "PLANTED^IN^ITEM"
                dataset.add_new(tag, vr, Sequence([item]))
            elif vr in PLANTED:
                dataset.add_new(tag, vr, PLANTED[vr])


def make_planted(syntax: str = ExplicitVRLittleEndian, **elements: object) -> bytes:
    file = pydicom.dcmread(BytesIO(make_dicom(IMAGE, syntax=syntax, **elements)))
    plant(file)
    file.file_meta.SourceApplicationEntityTitle = "PLANTED"
    file.file_meta.PrivateInformationCreatorUID, file.file_meta.PrivateInformation = "1.2.19370704", b"PLANTED!"
    file.preamble = b"PLANTED!" * 16
    inner = Dataset()
    inner.ReferencedSOPInstanceUID, inner.PatientName = "1.2.3.4", "PLANTED^DEEP"
    inner.ReferencedSOPClassUID = file.SOPClassUID
    inner.private_block(0x0011, "PLANTED", create=True).add_new(1, "LO", "PLANTED")
    file.ReferencedImageSequence = Sequence([inner])
    kept = Dataset()
    kept.CodeValue, kept.CodeMeaning, kept.ReferencedImageSequence = "T-D3000", "Chest", Sequence([inner])
    file.AnatomicRegionSequence = Sequence([kept])
    file.private_block(0x0009, "PLANTED", create=True).add_new(1, "PN", "PLANTED")
    file.add_new(0x50003000, "OW", b"PLANTED!")
    file.add_new(0x60003000, "OW", b"PLANTED!")
    file.add_new(0x60020022, "LO", "PLANTED")
    file.add_new(0xFFFCFFFC, "OB", b"PLANTED!")
    buffer = BytesIO()
    file.save_as(buffer)
    return buffer.getvalue()
