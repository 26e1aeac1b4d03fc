"""The one place that parses DICOM: finds the data set in a file and hands out plain Python values.

Only the elements in `KEPT` are held in memory, so a patient's name never is, but for two who ask for more: a
dataset's maker for the PatientID, and DICOMweb for what it has to answer. pydicom's warnings and log lines quote
element values, and its parser lets many kinds of exception through; none of them leaves this module.
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
            raise error(f"{error.meaning()} ({type(exc).__name__})") from None


@dataclass(frozen=True)
class PixelDataPlace:
    """Where the value of the pixel data lies in a file or, of a deflated one, in what it inflates to."""

    start: int
    #: None where it is encapsulated.
    byte_count: int | None
    #: None where the file does not say it.
    vr: str | None


@dataclass
class Remarks:
    """What a reader of the picture should know of how its file was read; in words of ours and keywords."""

    words: list[str] = field(default_factory=list)
    #: Whether anything was read in another way than the standard has it.
    irregular: bool = False

    def leave_out(self, keyword: str) -> None:
        """Note an element that counts as absent, as it cannot be read."""
        self._add(f"{name_of(keyword)} cannot be read, left out")

    def mend(self, words: str) -> None:
        """Note what was read in another way than the standard has it."""
        self._add(words)
        self.irregular = True

    def _add(self, words: str) -> None:
        if words not in self.words:
            self.words.append(words)


@dataclass(frozen=True)
class DicomFile:
    """The elements of one file that Carina reads, with typed access.

    An element that is there and cannot be read counts as absent, and `remarks` say so; where it is `required` to be
    readable, `MalformedDicom` is raised instead, with its name.
    """

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
    #: Whether the bytes that were read end within an element before the pixel data.
    is_cut: bool = False
    remarks: Remarks = field(default_factory=Remarks, compare=False)

    @property
    def reaches_pixel_data(self) -> bool:
        """Whether the data set comes to its pixel data within the bytes that were read."""
        return self.pixel_data is not None

    def text(self, keyword: str, *, required: bool = False) -> str | None:
        """The element's first value as stripped text; None where it is absent or empty."""
        texts = texts_of(self._values(keyword))
        if texts and texts[0] is None:
            self._pass_over(keyword, required)
        return (texts[0] or None) if texts else None

    def integer(self, keyword: str, *, required: bool = False) -> int | None:
        """The element's first value as an int; None where it is absent or empty."""
        number = self.number(keyword, required=required)
        if number is not None and not math.isfinite(number):
            self._pass_over(keyword, required)
            return None
        return None if number is None else int(number)

    def number(self, keyword: str, *, required: bool = False) -> float | None:
        """The element's first value as a float; None where it is absent or empty."""
        numbers = self._numbers(keyword, required, most=1)
        return numbers[0] if numbers else None

    def numbers(self, keyword: str) -> list[float | None]:
        """The element's values as floats, None for one that is empty or cannot be read; without empty ones at the end.

        The list is empty where the element is absent or empty.
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
    """Whether `data` starts as a DICOM file does, with or without preamble and file meta."""
    return _find_start(data) is not None


def read_dicom(
    data: bytes, *, max_bytes: int, kept: Sequence[str | int] | None = KEPT, lenient: bool = False
) -> DicomFile:
    """Parse a file, or the first part of one, up to its pixel data.

    A deflated data set is inflated to at most `max_bytes`. Where `kept` is None every element is. A sequence that
    cannot be parsed is dropped; where a picture depends on it, the file is refused, unless reading is `lenient` or
    every element is kept. What parsing costs is bounded (`shared.imaging.dicom_bounds`). Raises `UnsupportedFileType`
    and `MalformedDicom`.
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
        most_bytes = None
        if syntax == DeflatedExplicitVRLittleEndian:
            # pydicom's own way inflates without a bound, and not at all where the end is missing.
            most_bytes = max_bytes
            data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data[begin:], max_bytes)
            stream = MeteredStream(data, allowance)
        reading = _Reading(stream, data, implicit=syntax == ImplicitVRLittleEndian, little_endian=little_endian)
        dataset = reading.read(None if kept is None else [Tag(keyword) for keyword in kept])
        if not dataset:  # pydicom drops every element when one has no end
            raise MalformedDicom
        open_sequences(dataset, allowance, strict=not (lenient or kept is None))
    is_cut = reading.is_cut and len(data) != most_bytes
    return DicomFile(dataset, syntax, reading.pixel_data, little_endian, begin, data, is_cut)


class _UnknownVr(Exception):
    """An element of an explicit data set has a VR that nobody knows, and pydicom takes it for one without."""


class _Reading:
    """One data set while it is parsed: what its elements' heads tell before their values are read."""

    def __init__(self, stream: MeteredStream, data: bytes, *, implicit: bool, little_endian: bool) -> None:
        self._stream, self._data = stream, data
        self._implicit, self._little_endian = implicit, little_endian
        self.pixel_data: PixelDataPlace | None = None
        self.is_cut = False

    def read(self, tags: list[BaseTag | int] | None) -> Dataset:
        """Parse the elements before the pixel data; inside `quietly`, as pydicom's settings are everybody's.

        pydicom takes an element whose VR is none for one in implicit VR, as some writers switch to. Where the bytes say
        that it has a length of its kind of 16 bits instead, all of them are read so.
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
        """Look at an element whose head pydicom has read; return whether to end before it."""
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
        """Whether an element that seems to have no VR is followed by one with a VR if its length has 16 bits."""
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
