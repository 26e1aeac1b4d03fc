"""What a DICOM header says against its image being a frontal chest radiograph: the device, the part, the view.

An element that is absent, or says what is not known here, speaks against nothing: tags are often left out, and as often
free text. Nothing of them is kept or logged but the flags.
"""

import json
import re
from pathlib import Path

from pydicom.dataset import Dataset

from shared.errors import MalformedDicom
from shared.imaging.dicom_file import DicomFile, quietly
from shared.vocabulary.flags import Flag

_CODES: dict[str, list[str]] = json.loads((Path(__file__).parent / "tagged_view.json").read_text())

#: Image storage, PS3.4 annex B.5; what the standard defines beside these and is of another kind begins alike.
_STORAGE = "1.2.840.10008.5.1.4.1.1."
#: CR; digital X-ray, for presentation and for processing; secondary capture, as which scanned film comes, with one or
#: several frames; radiofluoroscopy, whose rooms take chest films as well.
_RADIOGRAPHS = re.compile(re.escape(_STORAGE) + r"(1|1\.1(\.1)?|7(\.[1-4])?|12\.2)")
#: The defined terms of PS3.3 C.7.3.1.1.1 for what is no projection of a body onto one film. CR, DX, RG, PX and RF are
#: none of these; OT says nothing.
_OTHER_MODALITIES = frozenset(_CODES["other_modalities"])

#: ViewPosition (PS3.3 C.8.1.2 and C.8.7.1): LL and RL, and what is written for them. LLD and RLD, lying on a side, and
#: obliques are not taken from the side.
_LATERAL_POSITION = re.compile(r"[LR]L|(LEFT|RIGHT|LT|RT|L|R)?[ _-]*LAT(ERAL)?[ _-]*(LEFT|RIGHT|LT|RT|L|R)?|ML|LM")
#: Lateral, left and right lateral, latero-medial, medio-lateral and sagittal of CID 4010 (PS3.16), SCT and SRT.
_LATERAL_CODES = frozenset(_CODES["lateral_projections"])

#: BodyPartExamined: words of the chest and of what is seen with it, then of other parts.
_CHEST = re.compile(
    r"CHEST|THORA[XC]|TORAX|LUNG|PULM|RIB|STERN|CLAV|SCAP|HEART|CARD|MEDIAST|AORTA|TRACH|BRONCH|BODY|TRUNK"
)
_SPINE = re.compile(r"SPINE|VERTEB|LUMB|CERVIC|SACR|COCCYX")
_ELSEWHERE = re.compile(
    r"ABD|PELV|SKULL|HEAD|BRAIN|CRANI|FACE|FACIAL|NASAL|NOSE|SINUS|ORBIT|EYE|JAW|MANDIB|MAXILL|TEETH|TOOTH|DENTAL|NECK|"
    r"SHOULDER|HUMER|ELBOW|FOREARM|RADIUS|ULNA|WRIST|HAND|FINGER|THUMB|\bARM\b|HIP\b|FEMUR|THIGH|KNEE|PATELLA|TIBIA|"
    r"FIBULA|\bLEG|ANKLE|CALCAN|HEEL|FOOT|FEET|\bTOE|EXTREM|LIMB|BREAST|KIDNEY|BLADDER|STOMACH|COLON|LIVER|BOWEL"
)
#: Regions of CID 4009 (PS3.16) that a chest film is not of, SCT and SRT.
_OTHER_REGIONS = frozenset(_CODES["other_regions"])


def read_tag_flags(file: DicomFile) -> tuple[Flag, ...]:
    """`NOT_A_RADIOGRAPH`, `NOT_A_CHEST` and `LATERAL_VIEW`, each where an element says so."""
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
    if _SPINE.search(part):  # before the words of the chest, one of which is in the thoracic spine
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
    """The element's first value in capitals; empty where there is none, or none that can be read."""
    return (file.text(keyword) or "").upper()


def _read_codes(file: DicomFile, keyword: str) -> frozenset[str]:
    """The code values of a sequence of coded concepts (PS3.3 section 8.8)."""
    try:
        with quietly():
            items: list[Dataset] = list(file.dataset.get(keyword) or [])
            return frozenset(str(item.get("CodeValue", "")).strip(" \0") for item in items) - {""}
    except MalformedDicom:
        return frozenset()
