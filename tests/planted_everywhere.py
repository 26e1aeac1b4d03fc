"""A DICOM file with a mark in every element that pydicom's dictionaries know, in unknown ones, and within sequences."""

import re
import struct
from collections import Counter
from collections.abc import Callable
from functools import cache
from io import BytesIO
from typing import Any

import pydicom
from pydicom._dicom_dict import DicomDictionary, RepeatersDictionary
from pydicom._private_dict import private_dictionaries
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag, Tag
from pydicom.uid import ExplicitVRLittleEndian

from tests.planted import IMAGE
from tests.synthetic_dicom import make_dicom

#: As text in one and two bytes a character, and as the numbers that are planted where there is no text.
MARK = re.compile(b"PLANTED|PLAN|P\0L\0A\0N|\0P\0L\0A\0N|NALP|19370704|077Y", re.IGNORECASE)
#: What pixels are read by; a mark in these would make another file of it.
PIXEL_MODULE = {
    "SOPClassUID", "SamplesPerPixel", "PhotometricInterpretation", "NumberOfFrames", "Rows", "Columns", "BitsAllocated",
    "BitsStored", "HighBit", "PixelRepresentation",
}  # fmt: skip
_LEFT_OUT = PIXEL_MODULE | {"PixelData", "SpecificCharacterSet"}
#: Commands, file meta information, directories and delimiters have no place in a data set.
_GROUPS_LEFT_OUT = {0x0000, 0x0002, 0x0004, 0xFFFE}
_DOUBLE, _FLOAT = struct.unpack("<d", b"PLANTED!")[0], struct.unpack("<f", b"PLAN")[0]
_LONG = struct.unpack("<I", b"PLAN")[0]
VALUES: dict[str, Any] = {
    "AE": "PLANTED", "AS": "077Y", "AT": 0x4C504E41, "CS": "PLANTED", "DA": "19370704", "DS": "19370704",
    "DT": "19370704101112", "FD": _DOUBLE, "FL": _FLOAT, "IS": "19370704", "LO": "PLANTED", "LT": "PLANTED",
    "OB": b"PLANTED!", "OD": b"PLANTED!", "OF": b"PLANTED!", "OL": b"PLANTED!", "OV": b"PLANTED!", "OW": b"PLANTED!",
    "PN": "PLANTED^NAME", "SH": "PLANTED", "SL": _LONG, "SS": 0x4C50, "ST": "PLANTED", "SV": _LONG << 32 | _LONG,
    "TM": "101112", "UC": "PLANTED", "UI": "1.2.19370704.7", "UL": _LONG, "UN": b"PLANTED!", "UR": "http://PLANTED",
    "US": [0x4C50, 0x4E41], "UT": "PLANTED", "UV": _LONG << 32 | _LONG,
}  # fmt: skip
#: Every element of the standard's dictionary that is planted, by tag.
EVERYWHERE = {
    tag: entry[0].split(" or ")[-1]
    for tag, entry in DicomDictionary.items()
    if tag >> 16 not in _GROUPS_LEFT_OUT and entry[4] not in _LEFT_OUT and entry[0] != "NONE" and entry[4]
}


@cache
def make_planted_everywhere(syntax: str) -> bytes:
    """An image whose header holds a mark in every place."""
    file = pydicom.dcmread(BytesIO(make_dicom(IMAGE, syntax=syntax)))
    for tag, vr in EVERYWHERE.items():
        file.add_new(tag, vr, _value(vr, _deep_item))
    for mask, entry in RepeatersDictionary.items():
        if entry[4] and entry[0] != "NONE":
            tag = Tag(int(mask.replace("x", "0"), 16) | 0x00020000)
            if tag.group & 0xFF00 in (0x5000, 0x6000):
                file.add_new(tag, entry[0].split(" or ")[-1], _value(entry[0].split(" or ")[-1], Dataset))
    if syntax == ExplicitVRLittleEndian:  # they take a while
        _plant_private(file)
    for tag in (0x00089998, 0x00189998, 0x00289998, 0x00409998, 0x7FDE0001):  # in no dictionary
        file.add_new(tag, "UN", b"PLANTED!")
    file.preamble = b"PLANTED!" * 16
    file.file_meta.SourceApplicationEntityTitle = "PLANTED"
    file.file_meta.ImplementationVersionName = "PLANTED"
    file.file_meta.PrivateInformationCreatorUID, file.file_meta.PrivateInformation = "1.2.19370704", b"PLANTED!"
    buffer = BytesIO()
    file.save_as(buffer)
    return buffer.getvalue() if syntax.endswith("99") else buffer.getvalue() + b"PLANTED!"


def _value(vr: str, make_item: Callable[[], Dataset]) -> Any:
    return Sequence([make_item()]) if vr == "SQ" else VALUES[vr]


def _deep_item(levels: int = 3) -> Dataset:
    """An item that holds texts, codes and references, and an item within an item within it."""
    item = Dataset()
    item.PatientName, item.StudyDescription, item.CodeValue = "PLANTED^NAME", "PLANTED", "PLANTED"
    item.CodeMeaning, item.ReferencedSOPInstanceUID, item.LUTExplanation = "PLANTED", "1.2.19370704.7", "PLANTED"
    item.private_block(0x0011, "PLANTED", create=True).add_new(1, "LO", "PLANTED")
    item.add_new(0x00283006, "OW", b"PLANTED!")
    if levels > 1:
        item.add_new(0x00082218 if levels % 2 else 0x00081140, "SQ", Sequence([_deep_item(levels - 1)]))
    return item


def _plant_private(file: Dataset) -> None:
    """Every element of the private dictionary, of each creator in a block of its own."""
    blocks: dict[tuple[int, str], int] = {}
    taken: Counter[int] = Counter()
    for creator, elements in private_dictionaries.items():
        for mask, entry in elements.items():
            group, offset = int(mask[:4].replace("x", "0"), 16), int(mask[-2:].replace("x", "0"), 16)
            vr = entry[0].split(" or ")[-1]
            if group % 2 and group > 8 and vr in (*VALUES, "SQ"):
                if (group, creator) not in blocks:
                    blocks[group, creator] = min(0x10 + taken[group], 0xFF)
                    taken[group] += 1
                block = blocks[group, creator]
                file.add_new(BaseTag(group << 16 | block), "LO", creator)
                file.add_new(BaseTag(group << 16 | block << 8 | offset), vr, _value(vr, Dataset))
