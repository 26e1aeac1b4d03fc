"""The one place that parses DICOM: finds the data set in a file and hands out plain Python values.

Only the elements in `KEPT` are held in memory, so a patient's name never is, but for two who ask for more: a
dataset's maker for the PatientID, and DICOMweb for what it has to answer. pydicom's warnings and log lines quote
element values, and its parser lets many kinds of exception through; none of them leaves this module.
"""

import logging
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from pydicom import config
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag, Tag
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from pydicom.values import converters

from shared.errors import CarinaError, MalformedDicom, UnsupportedFileType
from shared.imaging.dicom_bounds import Allowance, MeteredStream, open_sequences

KEPT = [
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Modality", "BurnedInAnnotation",
    "BodyPartExamined", "ViewPosition", "ViewCodeSequence", "AnatomicRegionSequence",
    "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation", "Rows",
    "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelPaddingValue",
    "PixelPaddingRangeLimit", "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence", "WindowCenter", "WindowWidth",
    "VOILUTFunction", "VOILUTSequence", "PresentationLUTShape", "PresentationIntentType", "PixelIntensityRelationship",
    "PixelSpacing", "PixelSpacingCalibrationType", "ImagerPixelSpacing", "NominalScannedPixelSpacing",
    "PixelAspectRatio",
]  # fmt: skip
_SYNTAX, _PIXEL_DATA = Tag("TransferSyntaxUID"), Tag("PixelData")
_UNDEFINED_LENGTH = 0xFFFFFFFF
#: The most of a deflated data set that is inflated to find the patient.
_HEADER_BYTES = 8 * 1024**2
_PREFIX_BYTES = 132  # the preamble and `DICM`, PS3.10 section 7.1

logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
config.settings.reading_validation_mode = config.IGNORE
# `warnings.catch_warnings` swaps global state, so one thread at a time may be inside it.
_quiet_lock = threading.RLock()


@contextmanager
def quietly(error: type[CarinaError] = MalformedDicom) -> Iterator[None]:
    """Silence the warnings of a parser that reads a stranger's bytes, and turn whatever it raises into `error`."""
    with _quiet_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except (CarinaError, MemoryError):
            raise
        except Exception as exc:  # noqa: BLE001 - a hostile file gets nearly anything raised
            # Not `from exc`: its message may quote a patient's data, and a log would show it.
            raise error(f"{(error.__doc__ or '').strip()} ({type(exc).__name__})") from None


@dataclass(frozen=True)
class PixelDataPlace:
    """Where the value of the pixel data lies in a file or, of a deflated one, in what it inflates to."""

    start: int
    #: None where it is encapsulated.
    byte_count: int | None
    #: None where the file does not say it.
    vr: str | None


@dataclass(frozen=True)
class DicomFile:
    """The elements of one file that Carina reads, with typed access; every method raises `MalformedDicom`."""

    dataset: Dataset
    #: As the file says or, where it has no file meta, as its first element implies.
    transfer_syntax_uid: str
    #: None where the data set does not come to its pixel data within the bytes that were read.
    pixel_data: PixelDataPlace | None
    little_endian: bool
    #: Where in the file the data set begins.
    start: int
    #: What `pixel_data` is a place in: the bytes that were read or, of a deflated data set, what they inflate to.
    body: bytes | memoryview

    @property
    def reaches_pixel_data(self) -> bool:
        """Whether the data set comes to its pixel data within the bytes that were read."""
        return self.pixel_data is not None

    def text(self, keyword: str) -> str | None:
        """The element's first value as stripped text; None where it is absent or empty."""
        values = self._values(keyword)
        return (str(values[0]).strip(" \0") or None) if values else None

    def integer(self, keyword: str) -> int | None:
        """The element's first value as an int; None where it is absent or empty."""
        with quietly():
            values = self._values(keyword)
            return int(values[0]) if values else None  # type: ignore[call-overload]

    def number(self, keyword: str) -> float | None:
        """The element's first value as a float; None where it is absent or empty."""
        with quietly():
            values = self._values(keyword)
            return float(values[0]) if values else None  # type: ignore[arg-type]

    def numbers(self, keyword: str) -> list[float]:
        """The element's values as floats; empty where it is absent or empty."""
        with quietly():
            return [float(value) for value in self._values(keyword)]  # type: ignore[arg-type]

    def _values(self, keyword: str) -> list[object]:
        with quietly():
            value = self.dataset.get(keyword)
            if value is None or value == "":
                return []
            return list(value) if isinstance(value, MultiValue | list) else [value]


def _is_beyond_meta(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return bool(tag.group != 0x0002)


def looks_like_dicom(data: bytes) -> bool:
    """Whether `data` starts as a DICOM file does, with or without preamble and file meta."""
    return _find_start(data) is not None


def read_dicom(
    data: bytes, *, max_bytes: int, kept: Sequence[str | int] | None = KEPT, lenient: bool = False
) -> DicomFile:
    """Parse a file, or the first part of one, up to its pixel data.

    A deflated data set is inflated to at most `max_bytes`. Where `kept` is None every element is. A sequence that
    cannot be parsed is dropped where reading is `lenient` or every element is kept, else the file is refused. What
    parsing costs is bounded (`shared.imaging.dicom_bounds`). Raises `UnsupportedFileType` and `MalformedDicom`.
    """
    start = _find_start(data)
    if start is None:
        raise UnsupportedFileType
    with quietly():
        allowance = Allowance()
        stream = MeteredStream(data, allowance)
        stream.seek(start)
        meta = read_dataset(stream, False, True, stop_when=_is_beyond_meta, specific_tags=[_SYNTAX])
        open_sequences(meta, allowance, strict=True)
        if "TransferSyntaxUID" in meta:
            syntax = str(meta.TransferSyntaxUID).strip(" \0")
            little_endian = syntax != ExplicitVRBigEndian
        else:
            syntax, little_endian = _implied_syntax(data[stream.tell() : stream.tell() + 6])
        begin = stream.tell()
        if syntax == DeflatedExplicitVRLittleEndian:
            # pydicom's own way inflates without a bound, and not at all where the end is missing.
            data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data[begin:], max_bytes)
            stream = MeteredStream(data, allowance)
        implicit = syntax == ImplicitVRLittleEndian
        place: PixelDataPlace | None = None

        def at_pixel_data(tag: BaseTag, vr: str | None, length: int) -> bool:
            nonlocal place
            if tag == _PIXEL_DATA:  # pydicom has read the element's head
                place = PixelDataPlace(stream.tell(), None if length == _UNDEFINED_LENGTH else length, vr)
            return bool(tag >= _PIXEL_DATA)

        tags: list[BaseTag | int] | None = None if kept is None else [Tag(keyword) for keyword in kept]
        dataset = read_dataset(stream, implicit, little_endian, stop_when=at_pixel_data, specific_tags=tags)
        if not dataset:  # pydicom drops every element when one has no end
            raise MalformedDicom
        open_sequences(dataset, allowance, strict=not (lenient or kept is None))
    return DicomFile(dataset, syntax, place, little_endian, begin, data)


def read_patient_id(data: bytes) -> str | None:
    """The PatientID of a file; None where the file is no DICOM or has none. Raises `MalformedDicom`.

    Only to tell patients apart while a dataset is made; it is neither stored nor logged.
    """
    if _find_start(data) is None:
        return None
    file = read_dicom(data, max_bytes=_HEADER_BYTES, kept=["PatientID", "Rows"])
    return file.text("PatientID")


def _find_start(data: bytes) -> int | None:
    """Where the first element begins: after the preamble, at the very start, or one byte after it.

    The last is what a tool leaves that cut the file meta off at its value's padding byte.
    """
    if data[128:132] == b"DICM":
        return _PREFIX_BYTES
    return next((start for start in (0, 1) if _is_first_element(data[start : start + 8])), None)


def _is_first_element(element: bytes) -> bool:
    """Whether 8 bytes open a data element of group 0002 or 0008, the only ones that a DICOM file starts with."""
    if len(element) < 8:
        return False
    group, number, length = struct.unpack("<HHL", element)
    explicit = element[4:6].decode("latin-1") in converters
    if group in (0x0002, 0x0008):
        return explicit or (number < 0x1000 and length < 1024)
    return group == 0x0800 and explicit  # group 0008 in big endian


def _implied_syntax(element: bytes) -> tuple[str, bool]:
    """The native transfer syntax, and whether it is little endian, of a data set that starts with `element`."""
    explicit = element[4:6].decode("latin-1") in converters
    if explicit and element[:2] == b"\0\x08":
        return str(ExplicitVRBigEndian), False
    return str(ExplicitVRLittleEndian if explicit else ImplicitVRLittleEndian), True
