"""The elements that de-identification keeps, and the allowed values of each. All other elements are removed.

The elements are needed for decoding, grey levels, geometry, the view and grouping. They come from the modules of CR, DX
and secondary capture images (PS3.3 sections C.7, C.8 and C.11). A text is kept only if it is a defined or common term,
and a number only if it is plausible for its quantity. Table E.1-1 of PS3.15 annex E determines the rest: required
names, dates and similar elements become empty (Z), and identifiers become pseudonyms.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

_FOLDER = Path(__file__).parent
_TERMS: dict[str, list[str]] = json.loads((_FOLDER / "terms.json").read_text())
#: Meanings of regions and views by code value (PS3.16 CID 4009, 4010, 4011 and 4031), SCT and SRT.
MEANINGS: dict[str, str] = json.loads((_FOLDER / "codes.json").read_text())


class Plain(Enum):
    """Rules that do not check the value of an element."""

    #: The element is kept without its value.
    EMPTY = "empty"
    #: A pseudonym replaces the identifier.
    PSEUDONYM = "pseudonym"
    #: A pseudonym replaces the UID.
    UID = "uid"
    #: A registered SOP class is kept; a pseudonym replaces any other UID.
    SOP_CLASS = "sop_class"


@dataclass(frozen=True)
class Number:
    """Numbers from `lowest` to `highest`, at most `most` of them; they are rewritten."""

    lowest: float
    highest: float
    most: int = 1


@dataclass(frozen=True)
class Terms:
    """Texts in `terms`, at most `most` of them; they end before the first other text."""

    terms: frozenset[str]
    most: int = 1
    #: Whether any case is accepted; the text is then kept in capitals.
    in_any_case: bool = False


@dataclass(frozen=True)
class Items:
    """A sequence whose items have these elements."""

    rules: "Rules"


@dataclass(frozen=True)
class Codes:
    """A sequence of known codes, with the meaning from `MEANINGS`, and these elements."""

    rules: "Rules" = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """A sequence of lookup tables (PS3.3 C.11.1 and C.11.2)."""

    rules: "Rules" = field(default_factory=dict)


Rule = Plain | Number | Terms | Items | Codes | Table
#: By keyword.
Rules = Mapping[str, Rule]


def _terms(text: str, most: int = 1) -> Terms:
    return Terms(frozenset(text.split()), most)


_YES_OR_NO = _terms("YES NO")
_REFERENCES = Items({"ReferencedSOPClassUID": Plain.SOP_CLASS, "ReferencedSOPInstanceUID": Plain.UID})
_LUT_TYPE = _terms("OD HU US MGML Z_EFF ED EDW HU_MOD PCT")
_ORIENTATIONS = frozenset(
    first + second + third
    for first in ("L", "R", "A", "P", "H", "F")
    for second in ("", "L", "R", "A", "P", "H", "F")
    for third in ("", "L", "R", "A", "P", "H", "F")
)
#: Maximum absolute value of a grey level, and of a factor of grey levels.
_GREY = 1e7
#: Longer series and instance numbers may identify a person.
_ORDINAL = Number(0, 99_999)

RULES: Rules = {
    # SOP Common, General Study, Series and Image; Patient.
    "SOPClassUID": Plain.SOP_CLASS,
    "SOPInstanceUID": Plain.UID,
    "StudyInstanceUID": Plain.UID,
    "SeriesInstanceUID": Plain.UID,
    "FrameOfReferenceUID": Plain.UID,
    "StudyDate": Plain.EMPTY,
    "StudyTime": Plain.EMPTY,
    "ContentDate": Plain.EMPTY,
    "ContentTime": Plain.EMPTY,
    "AccessionNumber": Plain.PSEUDONYM,
    "ReferringPhysicianName": Plain.EMPTY,
    "StudyID": Plain.PSEUDONYM,
    "PatientName": Plain.EMPTY,
    "PatientID": Plain.PSEUDONYM,
    "PatientBirthDate": Plain.EMPTY,
    "PatientSex": Plain.EMPTY,
    "Manufacturer": Plain.EMPTY,
    "DeviceSerialNumber": Plain.PSEUDONYM,
    "DetectorID": Plain.PSEUDONYM,
    "Modality": Terms(frozenset(_TERMS["Modality"])),
    "ConversionType": _terms("DV DI DF WSD SD SI DRW SYN"),
    "SeriesNumber": _ORDINAL,
    "AcquisitionNumber": _ORDINAL,
    "InstanceNumber": _ORDINAL,
    "ImageType": _terms("ORIGINAL DERIVED PRIMARY SECONDARY", most=2),
    "QualityControlImage": _YES_OR_NO,
    "BurnedInAnnotation": _YES_OR_NO,
    "RecognizableVisualFeatures": _YES_OR_NO,
    "LossyImageCompression": _terms("00 01"),
    "LossyImageCompressionRatio": Number(0, 10_000, most=8),
    "LossyImageCompressionMethod": _terms(
        "ISO_10918_1 ISO_14495_1 ISO_15444_1 ISO_15444_15 ISO_18181_1 ISO_13818_2 ISO_14496_10 ISO_23008_2", most=8
    ),
    "ReferencedImageSequence": _REFERENCES,
    "SourceImageSequence": _REFERENCES,
    # The body part and the view.
    "BodyPartExamined": Terms(frozenset(_TERMS["BodyPartExamined"]), in_any_case=True),
    "ViewPosition": Terms(frozenset(_TERMS["ViewPosition"]), in_any_case=True),
    "Laterality": _terms("R L"),
    "ImageLaterality": _terms("R L U B"),
    "PatientOrientation": Terms(_ORIENTATIONS, most=2),
    "PatientPosition": _terms("HFP HFS HFDR HFDL FFDR FFDL FFP FFS LFP LFS RFP RFS AFDR AFDL PFDR PFDL SITTING"),
    "AnatomicRegionSequence": Codes(
        {"AnatomicRegionModifierSequence": Codes(), "ReferencedImageSequence": _REFERENCES}
    ),
    "AcquisitionContextSequence": Items({}),
    "ViewCodeSequence": Codes({"ViewModifierCodeSequence": Codes()}),
    # The acquisition.
    "KVP": Number(0, 1000),
    "ExposureTime": Number(0, 100_000),
    "XRayTubeCurrent": Number(0, 100_000),
    "Exposure": Number(0, 100_000),
    "ExposureTimeInuS": Number(0, _GREY),
    "XRayTubeCurrentInuA": Number(0, _GREY),
    "ExposureInuAs": Number(0, _GREY),
    "ExposureControlMode": _terms("MANUAL AUTOMATIC"),
    "ExposureStatus": _terms("NORMAL ABORTED"),
    "RelativeXRayExposure": Number(0, 100_000),
    "ExposureIndex": Number(0, 100_000),
    "TargetExposureIndex": Number(0, 100_000),
    "DeviationIndex": Number(-100, 100),
    "Sensitivity": Number(0, 100_000),
    "FocalSpots": Number(0, 10, most=4),
    "Grid": _terms("FIXED FOCUSED RECIPROCATING PARALLEL CROSSED NONE", most=4),
    "AnodeTargetMaterial": _terms("TUNGSTEN MOLYBDENUM RHODIUM"),
    "DistanceSourceToDetector": Number(0, 10_000),
    "DistanceSourceToPatient": Number(0, 10_000),
    "EstimatedRadiographicMagnificationFactor": Number(0, 100),
    "PositionerType": _terms("NONE COLUMN C-ARM CARM MAMMOGRAPHIC PANORAMIC CEPHALOSTAT RIGID"),
    "DetectorType": _terms("DIRECT SCINTILLATOR STORAGE FILM"),
    "DetectorConfiguration": _terms("AREA SLOT"),
    "FieldOfViewShape": _terms("RECTANGLE ROUND HEXAGONAL"),
    "FieldOfViewDimensions": Number(0, 10_000, most=2),
    "FieldOfViewRotation": Number(0, 360),
    "FieldOfViewHorizontalFlip": _YES_OR_NO,
    # The pixel size.
    "PixelSpacing": Number(0, 1000, most=2),
    "PixelSpacingCalibrationType": _terms("GEOMETRY FIDUCIAL"),
    "ImagerPixelSpacing": Number(0, 1000, most=2),
    "NominalScannedPixelSpacing": Number(0, 1000, most=2),
    "PixelAspectRatio": Number(0, 100_000, most=2),
    # The pixels and their grey levels.
    "SamplesPerPixel": Number(1, 1),
    "PhotometricInterpretation": _terms("MONOCHROME1 MONOCHROME2"),
    "NumberOfFrames": Number(1, 1),
    "Rows": Number(1, 65_535),
    "Columns": Number(1, 65_535),
    "BitsAllocated": Number(1, 64),
    "BitsStored": Number(1, 64),
    "HighBit": Number(0, 63),
    "PixelRepresentation": Number(0, 1),
    "PixelPaddingValue": Number(-32_768, 65_535),
    "PixelPaddingRangeLimit": Number(-32_768, 65_535),
    "PixelIntensityRelationship": _terms("LIN LOG DISP"),
    "PixelIntensityRelationshipSign": Number(-1, 1),
    "RescaleIntercept": Number(-_GREY, _GREY),
    "RescaleSlope": Number(-_GREY, _GREY),
    "RescaleType": _LUT_TYPE,
    "WindowCenter": Number(-_GREY, _GREY, most=16),
    "WindowWidth": Number(-_GREY, _GREY, most=16),
    "VOILUTFunction": _terms("LINEAR LINEAR_EXACT SIGMOID"),
    "ModalityLUTSequence": Table({"ModalityLUTType": _LUT_TYPE}),
    "VOILUTSequence": Table(),
    "PresentationLUTShape": _terms("IDENTITY INVERSE"),
    "PresentationIntentType": Terms(frozenset({"FOR PRESENTATION", "FOR PROCESSING"})),
}
