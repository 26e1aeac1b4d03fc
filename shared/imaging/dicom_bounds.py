"""Limits the cost of parsing a data set, because pydicom has no limits of its own.

A file of 8 MiB can hold a million elements, deeply nested sequences, or one element of four million numbers, and
pydicom creates an object for each. A radiograph has a few hundred elements and values. Therefore all work of pydicom is
counted: its reads, and the values that it will create.
"""

import re
from encodings import normalize_encoding
from encodings.aliases import aliases
from io import BytesIO
from itertools import chain
from typing import Any

from pydicom import charset
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.filereader import read_sequence
from pydicom.hooks import raw_element_vr
from pydicom.sequence import Sequence
from pydicom.tag import Tag
from pydicom.values import converters

from shared.errors import CarinaError, MalformedDicom
from shared.imaging.element_names import name_of

#: Maximum number of elements, items, fragments and values in a header: several hundred times those of a radiograph.
#: Reading this many takes 0.1–0.3 s.
MAX_STEPS = 50_000
#: Maximum nesting of sequences; those of a radiograph are three or four levels deep.
_MAX_LEVELS = 16
#: Maximum length of a value that Carina reads; a longer one is a mistake.
_MAX_VALUE_BYTES = 64 * 1024

_BULK_VRS = {"OB", "OW", "OF", "OD", "OL", "OV", "UN"}  # pydicom keeps these as bytes
_NUMBER_VRS = {"US", "SS", "UL", "SL", "UV", "SV", "FL", "FD", "AT"}
#: Creating this many numbers takes as long as creating one element.
_NUMBERS_A_STEP = 16
_SEQUENCE_STARTS = (b"", b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00", b"\xfe\xff\xdd\xe0", b"\xff\xfe\xe0\xdd")
#: Lookup tables that change the rendition; they cannot be dropped.
_TABLES = {Tag("ModalityLUTSequence"), Tag("VOILUTSequence")}
#: Misspelled names that pydicom corrects, such as `ISO-IR 100`.
_ISO_NAME = re.compile(r"ISO[^_]IR|ISO.2022.IR.")


class _CharacterSets(dict[str, str]):
    """pydicom's character sets; an unknown name gives the default character set.

    Otherwise Python would search the modules on disk for each unknown name, and cache the name.
    """

    def __missing__(self, name: object) -> str:
        if not isinstance(name, str):  # the element has another VR
            return charset.default_encoding
        known = normalize_encoding(name).lower()
        if known in aliases or known in aliases.values():
            return name
        if _ISO_NAME.match(name):
            raise KeyError(name)
        return charset.default_encoding


charset.python_encoding = _CharacterSets(charset.python_encoding)


class MalformedSequence(ValueError):
    """The sequence does not begin with an item."""


class Allowance:
    """The remaining parsing steps for one file."""

    def __init__(self, steps: int = MAX_STEPS) -> None:
        self._steps = steps

    def spend(self, steps: int = 1) -> None:
        """Use up `steps` steps; raises `MalformedDicom` if fewer are left."""
        self._steps -= steps
        if self._steps < 0:
            raise MalformedDicom("The DICOM header holds more than that of any radiograph.")


class MeteredStream(BytesIO):
    """A stream that counts each read as a step, and each backslash as another one: it separates two values."""

    def __init__(self, data: bytes, allowance: Allowance) -> None:
        super().__init__(data)
        self.allowance = allowance

    def read(self, size: int | None = -1, /) -> bytes:
        """Read and count the steps; raises `MalformedDicom` if the allowance is used up."""
        data = super().read(size)
        self.allowance.spend(1 + data.count(b"\\"))
        return data


def open_sequences(dataset: Dataset, allowance: Allowance, *, strict: bool, level: int = 0) -> None:
    """Parse all sequences, which pydicom would parse later, and count the values of the other elements.

    A sequence that cannot be parsed is dropped. If `strict`, a sequence that changes the rendition raises
    `MalformedDicom` instead. An unknown VR is replaced by the standard's VR for the element. Raises `MalformedDicom`.
    """
    if level > _MAX_LEVELS:
        raise MalformedDicom("The DICOM header has too many sequences within sequences.")
    _open_level(dataset, allowance, strict=strict)
    sequences = (element.value for element in _elements(dataset) if element.VR == "SQ" and element.value)
    for item in chain.from_iterable(sequences):
        open_sequences(item, allowance, strict=strict, level=level + 1)
    allowance.spend(0)  # raises again: pydicom suppresses some errors of a stream


def _open_level(dataset: Dataset, allowance: Allowance, *, strict: bool) -> None:
    """Parse the sequences of one level; a separate function frees its bytes before the next level is read."""
    raw_elements = [element for element in _elements(dataset) if isinstance(element, RawDataElement)]
    for raw in raw_elements:
        if raw.tag.is_private_creator:  # pydicom reads it to identify the elements of its block
            allowance.spend(_count_values(raw))
    for raw in raw_elements:
        try:
            _open(raw, dataset, allowance, strict=strict)
        except (CarinaError, MemoryError):
            raise
        except Exception:  # noqa: BLE001 - see `quietly`; a dropped element is never parsed again without a limit
            if strict and raw.tag in _TABLES:
                raise MalformedDicom(f"{name_of(raw.tag)} cannot be read.") from None
            del dataset[raw.tag]


def _elements(dataset: Dataset) -> list[DataElement | RawDataElement]:
    """Return all elements unparsed; iterating over the data set would create every value."""
    return [dataset.get_item(tag) for tag in dataset.keys()]  # noqa: SIM118


def _open(raw: RawDataElement, dataset: Dataset, allowance: Allowance, *, strict: bool) -> None:
    """Parse the element if it is a sequence, otherwise count its values."""
    if raw.VR is not None and raw.VR not in converters:
        raw = raw._replace(VR=None)
        dataset[raw.tag] = raw
    value = raw.value or b""
    found: dict[str, Any] = {}
    raw_element_vr(raw, found, ds=dataset)
    vrs = set(found["VR"].split(" or "))
    if "SQ" in vrs:
        if not strict and value[:4] not in _SEQUENCE_STARTS:  # pydicom would parse any bytes as an item
            raise MalformedSequence
        stream = MeteredStream(value, allowance)
        encodings = dataset.original_character_set
        items = read_sequence(stream, raw.is_implicit_VR, raw.is_little_endian, len(value), encodings)
        dataset[raw.tag] = DataElement(raw.tag, "SQ", Sequence(items))
    elif strict and len(value) > _MAX_VALUE_BYTES and not vrs & _BULK_VRS:
        raise MalformedDicom(f"{name_of(raw.tag)} is longer than it can be.")
    elif vrs & _NUMBER_VRS:
        allowance.spend(len(value) // (2 * _NUMBERS_A_STEP))
    elif not vrs <= _BULK_VRS:
        allowance.spend(_count_values(raw))


def _count_values(raw: RawDataElement) -> int:
    """Count the switches of character set in a value; its texts were counted when they were read."""
    return (raw.value or b"").count(b"\x1b")
