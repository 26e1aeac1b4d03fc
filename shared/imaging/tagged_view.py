"""Flags an image if its DICOM header states that it is not a frontal chest radiograph: device, body part, view.

An absent element or an unknown value raises no flag: elements are often missing or free text. Only the flags are
stored; the values are neither stored nor logged.
"""

import json
import re
from pathlib import Path

from pydicom.dataset import Dataset

from shared.errors import MalformedDicom
from shared.imaging.dicom_file import DicomFile, quietly
from shared.vocabulary.flags import Flag

_CODES: dict[str, list[str]] = json.loads((Path(__file__).parent / "tagged_view.json").read_text())

#: The prefix of storage SOP classes (PS3.4 annex B.5), of images and of other objects.
_STORAGE = "1.2.840.10008.5.1.4.1.1."
#: CR; digital X-ray for presentation and for processing; secondary capture with one or several frames, which scanned
#: film uses; radiofluoroscopy, because its rooms also take chest radiographs.
_RADIOGRAPHS = re.compile(re.escape(_STORAGE) + r"(1|1\.1(\.1)?|7(\.[1-4])?|12\.2)")
#: The defined terms of PS3.3 C.7.3.1.1.1 that are not projection radiography. CR, DX, RG, PX and RF are projection
#: radiography; OT can be anything.
_OTHER_MODALITIES = frozenset(_CODES["other_modalities"])

#: Lateral values of ViewPosition (PS3.3 C.8.1.2 and C.8.7.1): LL and RL, and other spellings. LLD and RLD (lying on one
#: side) and oblique views are not lateral.
_LATERAL_POSITION = re.compile(r"[LR]L|(LEFT|RIGHT|LT|RT|L|R)?[ _-]*LAT(ERAL)?[ _-]*(LEFT|RIGHT|LT|RT|L|R)?|ML|LM")
#: Lateral, left and right lateral, latero-medial, medio-lateral and sagittal of CID 4010 (PS3.16), SCT and SRT.
_LATERAL_CODES = frozenset(_CODES["lateral_projections"])

#: BodyPartExamined: words for the chest and for parts visible on a chest radiograph, then words for other parts.
_CHEST = re.compile(
    r"CHEST|THORA[XC]|TORAX|LUNG|PULM|RIB|STERN|CLAV|SCAP|HEART|CARD|MEDIAST|AORTA|TRACH|BRONCH|BODY|TRUNK"
)
_SPINE = re.compile(r"SPINE|VERTEB|LUMB|CERVIC|SACR|COCCYX")
_ELSEWHERE = re.compile(
    r"ABD|PELV|SKULL|HEAD|BRAIN|CRANI|FACE|FACIAL|NASAL|NOSE|SINUS|ORBIT|EYE|JAW|MANDIB|MAXILL|TEETH|TOOTH|DENTAL|NECK|"
    r"SHOULDER|HUMER|ELBOW|FOREARM|RADIUS|ULNA|WRIST|HAND|FINGER|THUMB|\bARM\b|HIP\b|FEMUR|THIGH|KNEE|PATELLA|TIBIA|"
    r"FIBULA|\bLEG|ANKLE|CALCAN|HEEL|FOOT|FEET|\bTOE|EXTREM|LIMB|BREAST|KIDNEY|BLADDER|STOMACH|COLON|LIVER|BOWEL"
)
#: Regions of CID 4009 (PS3.16) that are not on a chest radiograph, SCT and SRT.
_OTHER_REGIONS = frozenset(_CODES["other_regions"])


def read_tag_flags(file: DicomFile) -> tuple[Flag, ...]:
    """Return those of `NOT_A_RADIOGRAPH`, `NOT_A_CHEST` and `LATERAL_VIEW` that the header states."""
    said = {
        Flag.NOT_A_RADIOGRAPH: _is_of_another_device(file),
        Flag.NOT_A_CHEST: _is_of_another_part(file),
        Flag.LATERAL_VIEW: _is_from_the_side(file),
    }
    return tuple(flag for flag, holds in said.items() if holds)


def _is_of_another_device(file: DicomFile) -> bool:
    sop_class = _read_text(file, "SOPClassUID")
    if sop_class.startswith(_STORAGE) and not _RADIOGRAPHS.fullmatch(sop_class):
        return True
    return _read_text(file, "Modality") in _OTHER_MODALITIES


def _is_of_another_part(file: DicomFile) -> bool:
    part = _read_text(file, "BodyPartExamined")
    if "CHEST" in part:
        return False
    if _SPINE.search(part):  # checked before `_CHEST`, which also matches "thoracic spine"
        return True
    if _CHEST.search(part):
        return False
    regions = _read_codes(file, "AnatomicRegionSequence")
    return bool(_ELSEWHERE.search(part)) or (bool(regions) and regions <= _OTHER_REGIONS)


def _is_from_the_side(file: DicomFile) -> bool:
    if _LATERAL_POSITION.fullmatch(_read_text(file, "ViewPosition")):
        return True
    return bool(_read_codes(file, "ViewCodeSequence") & _LATERAL_CODES)


def _read_text(file: DicomFile, keyword: str) -> str:
    """Return the element's first value in capitals; empty if it is absent or unreadable."""
    return (file.text(keyword) or "").upper()


def _read_codes(file: DicomFile, keyword: str) -> frozenset[str]:
    """Return the code values of a sequence of coded concepts (PS3.3 section 8.8)."""
    try:
        with quietly():
            items: list[Dataset] = list(file.dataset.get(keyword) or [])
            return frozenset(str(item.get("CodeValue", "")).strip(" \0") for item in items) - {""}
    except MalformedDicom:
        return frozenset()
