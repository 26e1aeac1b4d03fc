"""Parses DICOM files. Only this module does: it finds the data set in a file and returns plain Python values.

Only the elements in `KEPT` are held in memory, so a patient's name never is. There are two exceptions: building a
dataset reads the PatientID, and DICOMweb reads the elements of its responses. pydicom's warnings and log lines contain
element values, and its parser raises many kinds of exceptions. None of these leaves this module.
"""

import logging
import math
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from pydicom import config
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
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
from shared.imaging.element_names import name_of
from shared.imaging.element_values import numbers_of, texts_of, values_of

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
#: Maximum size to which a deflated data set is inflated to find the patient.
_HEADER_BYTES = 8 * 1024**2
_PREFIX_BYTES = 132  # the preamble and `DICM`, PS3.10 section 7.1

logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
config.settings.reading_validation_mode = config.IGNORE
# `warnings.catch_warnings` changes global state, so only one thread at a time can use it.
_quiet_lock = threading.RLock()


@contextmanager
def quietly(error: type[CarinaError] = MalformedDicom) -> Iterator[None]:
    """Silence the warnings of a parser of untrusted bytes, and convert all its exceptions into `error`."""
    with _quiet_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except (CarinaError, MemoryError):
            raise
        except Exception as exc:  # noqa: BLE001 - a hostile file can raise nearly any exception
            # Not `from exc`: its message may contain patient data, and a log would show it.
            raise error(f"{error.meaning()} ({type(exc).__name__})") from None


@dataclass(frozen=True)
class PixelDataPlace:
    """The position of the pixel data's value in the file; for a deflated data set, in the inflated bytes."""

    start: int
    #: None if it is encapsulated.
    byte_count: int | None
    #: None if the file does not state it.
    vr: str | None


@dataclass
class Remarks:
    """Remarks for the reader about how a file was read; they contain only Carina's own words and keywords."""

    words: list[str] = field(default_factory=list)
    #: Whether anything was read in a way that differs from the standard.
    irregular: bool = False

    def leave_out(self, keyword: str) -> None:
        """Note an unreadable element, which counts as absent."""
        self._add(f"{name_of(keyword)} cannot be read, left out")

    def mend(self, words: str) -> None:
        """Note that something was read in a way that differs from the standard."""
        self._add(words)
        self.irregular = True

    def _add(self, words: str) -> None:
        if words not in self.words:
            self.words.append(words)


@dataclass(frozen=True)
class DicomFile:
    """The elements of one file that Carina reads, with typed access.

    An unreadable element counts as absent and is noted in `remarks`. If it is `required` to be readable, its reader
    raises `MalformedDicom` with its name instead.
    """

    dataset: Dataset
    #: As the file states or, without file meta information, as its first element implies.
    transfer_syntax_uid: str
    #: None if the bytes that were read do not reach the pixel data.
    pixel_data: PixelDataPlace | None
    little_endian: bool
    #: The position of the data set in the file.
    start: int
    #: The bytes that `pixel_data` refers to: the bytes that were read, inflated if the data set is deflated.
    body: bytes | memoryview
    #: Whether the bytes that were read end within an element before the pixel data.
    is_cut: bool = False
    remarks: Remarks = field(default_factory=Remarks, compare=False)

    @property
    def reaches_pixel_data(self) -> bool:
        """Whether the bytes that were read reach the pixel data."""
        return self.pixel_data is not None

    def text(self, keyword: str, *, required: bool = False) -> str | None:
        """Return the element's first value as stripped text; None if it is absent or empty."""
        texts = texts_of(self._values(keyword))
        if texts and texts[0] is None:
            self._pass_over(keyword, required)
        return (texts[0] or None) if texts else None

    def integer(self, keyword: str, *, required: bool = False) -> int | None:
        """Return the element's first value as an int; None if it is absent or empty."""
        number = self.number(keyword, required=required)
        if number is not None and not math.isfinite(number):
            self._pass_over(keyword, required)
            return None
        return None if number is None else int(number)

    def number(self, keyword: str, *, required: bool = False) -> float | None:
        """Return the element's first value as a float; None if it is absent or empty."""
        numbers = self._numbers(keyword, required, most=1)
        return numbers[0] if numbers else None

    def numbers(self, keyword: str) -> list[float | None]:
        """Return the element's values as floats, without empty ones at the end.

        An empty or unreadable value is None. The list is empty if the element is absent or empty.
        """
        return self._numbers(keyword, required=False)

    def _numbers(self, keyword: str, required: bool, most: int | None = None) -> list[float | None]:
        values = self._values(keyword)[:most]
        numbers = numbers_of(values)
        if any(number is None and value != "" for number, value in zip(numbers, values, strict=True)):
            self._pass_over(keyword, required)
        return numbers

    def _values(self, keyword: str) -> list[object]:
        with quietly():
            return values_of(self.dataset, keyword)

    def _pass_over(self, keyword: str, required: bool) -> None:
        if required:
            raise MalformedDicom(f"{name_of(keyword)} cannot be read.")
        self.remarks.leave_out(keyword)


def _is_beyond_meta(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return bool(tag.group != 0x0002)


def looks_like_dicom(data: bytes) -> bool:
    """Return whether `data` starts like a DICOM file, with or without preamble and file meta information."""
    return _find_start(data) is not None


def read_dicom(
    data: bytes, *, max_bytes: int, kept: Sequence[str | int] | None = KEPT, lenient: bool = False
) -> DicomFile:
    """Parse a file, or its first part, up to the pixel data.

    A deflated data set is inflated to at most `max_bytes`. If `kept` is None, all elements are kept. A sequence that
    cannot be parsed is dropped. If the rendition depends on it, `MalformedDicom` is raised, unless `lenient` is set or
    all elements are kept. `shared.imaging.dicom_bounds` limits the cost of parsing. Raises `UnsupportedFileType` and
    `MalformedDicom`.
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
        inflated_bytes = None
        if syntax == DeflatedExplicitVRLittleEndian:
            # pydicom would inflate without a limit, and fail if the end is missing.
            inflated_bytes = max_bytes
            data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data[begin:], max_bytes)
            stream = MeteredStream(data, allowance)
        reading = _Reading(stream, data, implicit=syntax == ImplicitVRLittleEndian, little_endian=little_endian)
        dataset = reading.read(None if kept is None else [Tag(keyword) for keyword in kept])
        if not dataset:  # pydicom drops every element when one has no end
            raise MalformedDicom
        open_sequences(dataset, allowance, strict=not (lenient or kept is None))
    is_cut = reading.is_cut and len(data) != inflated_bytes
    return DicomFile(dataset, syntax, reading.pixel_data, little_endian, begin, data, is_cut)


class _UnknownVr(Exception):
    """An element has an unknown VR, so pydicom would read the explicit data set as an implicit one."""


class _Reading:
    """Parses one data set and inspects the head of each element before its value is read."""

    def __init__(self, stream: MeteredStream, data: bytes, *, implicit: bool, little_endian: bool) -> None:
        self._stream, self._data = stream, data
        self._implicit, self._little_endian = implicit, little_endian
        self.pixel_data: PixelDataPlace | None = None
        self.is_cut = False

    def read(self, tags: list[BaseTag | int] | None) -> Dataset:
        """Parse the elements before the pixel data; call it inside `quietly`, because pydicom's settings are global.

        pydicom reads an element with an invalid VR as implicit VR, because some writers switch to it. If the bytes show
        an unknown VR with a 16-bit length instead, the data set is parsed again without this assumption.
        """
        start = self._stream.tell()
        try:
            return self._parse(tags)
        except _UnknownVr:
            self._stream.seek(start)
            config.assume_implicit_vr_switch = False
            try:
                return self._parse(tags)
            finally:
                config.assume_implicit_vr_switch = True

    def _parse(self, tags: list[BaseTag | int] | None) -> Dataset:
        return read_dataset(
            self._stream, self._implicit, self._little_endian, stop_when=self._look_at, specific_tags=tags
        )

    def _look_at(self, tag: BaseTag, vr: str | None, length: int) -> bool:
        """Inspect an element whose head pydicom has read; return whether to stop before it."""
        begin = self._stream.tell()
        if tag == _PIXEL_DATA:
            self.pixel_data = PixelDataPlace(begin, None if length == _UNDEFINED_LENGTH else length, vr)
        if tag >= _PIXEL_DATA:
            return True
        if vr is None and self._has_short_length(tag, begin):
            raise _UnknownVr
        self.is_cut = length != _UNDEFINED_LENGTH and begin + length > len(self._data)
        return False

    def _has_short_length(self, tag: BaseTag, begin: int) -> bool:
        """Return whether a 16-bit length of an element without a known VR leads to an element with a VR."""
        if not config.assume_implicit_vr_switch:
            return False
        order = "<" if self._little_endian else ">"
        (length,) = struct.unpack_from(f"{order}H", self._data, begin - 2)
        following = self._data[begin + length : begin + length + 6]
        if len(following) < 6:
            return False
        group, number, vr = struct.unpack(f"{order}HH2s", following)
        return bool(vr.decode("latin-1") in converters and Tag(group, number) > tag)


def read_patient_id(data: bytes) -> str | None:
    """Return a file's PatientID; None if it is not a DICOM file or has none. Raises `MalformedDicom`.

    It is used only to separate patients when a dataset is built, and is neither stored nor logged.
    """
    if _find_start(data) is None:
        return None
    file = read_dicom(data, max_bytes=_HEADER_BYTES, kept=["PatientID", "Rows"])
    return file.text("PatientID")


def _find_start(data: bytes) -> int | None:
    """Return the position of the first element: after the preamble, at byte 0, or at byte 1.

    It is at byte 1 if a tool removed the file meta information but left its last padding byte.
    """
    if data[128:132] == b"DICM":
        return _PREFIX_BYTES
    return next((start for start in (0, 1) if _is_first_element(data[start : start + 8])), None)


def _is_first_element(element: bytes) -> bool:
    """Return whether 8 bytes start an element of group 0002 or 0008: a DICOM file starts with one of these."""
    if len(element) < 8:
        return False
    group, number, length = struct.unpack("<HHL", element)
    explicit = element[4:6].decode("latin-1") in converters
    if group in (0x0002, 0x0008):
        return explicit or (number < 0x1000 and length < 1024)
    return group == 0x0800 and explicit  # group 0008 in big endian


def _implied_syntax(element: bytes) -> tuple[str, bool]:
    """Return the native transfer syntax of a data set that starts with `element`, and whether it is little endian."""
    explicit = element[4:6].decode("latin-1") in converters
    if explicit and element[:2] == b"\0\x08":
        return str(ExplicitVRBigEndian), False
    return str(ExplicitVRLittleEndian if explicit else ImplicitVRLittleEndian), True
