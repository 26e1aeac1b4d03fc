"""What reading a data set may cost, whatever it claims: pydicom follows every length, item and value, however many.

A file of 8 MiB has room for a million elements, for sequences within sequences, or for one element of four million
numbers, each of which pydicom turns into an object. A radiograph has a few hundred of either. So whatever pydicom does
is counted: the reads by which it gets ahead, and the values that it will make of what it has read.
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

#: Of elements, items, fragments and values that a header may have, several hundred times what a film has. To read as
#: many takes 0.1–0.3 s.
MOST_STEPS = 50_000
#: Of sequences within sequences; the deepest of a radiograph are three or four.
_MOST_LEVELS = 16
#: A value this long, of those that are asked for by name, can be nothing but a mistake.
_MOST_VALUE_BYTES = 64 * 1024

_BULK_VRS = {"OB", "OW", "OF", "OD", "OL", "OV", "UN"}  # stay bytes, however long
_NUMBER_VRS = {"US", "SS", "UL", "SL", "UV", "SV", "FL", "FD", "AT"}
#: Numbers are made so many times as fast as elements are.
_NUMBERS_A_STEP = 16
_SEQUENCE_STARTS = (b"", b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00", b"\xfe\xff\xdd\xe0", b"\xff\xfe\xe0\xdd")
#: Tables that a picture depends on: without one it would be another picture.
_TABLES = {Tag("ModalityLUTSequence"), Tag("VOILUTSequence")}
#: Names that pydicom corrects by itself, as `ISO-IR 100`.
_ISO_NAME = re.compile(r"ISO[^_]IR|ISO.2022.IR.")


class _CharacterSets(dict[str, str]):
    """pydicom's character sets, in which what is no name, or one that nobody knows, is the default one.

    pydicom would have Python look for each such name among the modules on disk, and remember it.
    """

    def __missing__(self, name: object) -> str:
        if not isinstance(name, str):  # of an element with another VR
            return charset.default_encoding
        known = normalize_encoding(name).lower()
        if known in aliases or known in aliases.values():
            return name
        if _ISO_NAME.match(name):
            raise KeyError(name)
        return charset.default_encoding


charset.python_encoding = _CharacterSets(charset.python_encoding)


class MalformedSequence(ValueError):
    """What should be a sequence does not begin with an item."""


class Allowance:
    """Steps that parsing one file may still take."""

    def __init__(self, steps: int = MOST_STEPS) -> None:
        self._steps = steps

    def spend(self, steps: int = 1) -> None:
        """Take so many of them; raise `MalformedDicom` where fewer are left."""
        self._steps -= steps
        if self._steps < 0:
            raise MalformedDicom("The DICOM header holds more than that of any radiograph.")


class MeteredStream(BytesIO):
    """Bytes of which each read is a step, and each backslash in them another: it may begin one more value."""

    def __init__(self, data: bytes, allowance: Allowance) -> None:
        super().__init__(data)
        self.allowance = allowance

    def read(self, size: int | None = -1, /) -> bytes:
        """Read as ever; raise `MalformedDicom` once the allowance is spent."""
        data = super().read(size)
        self.allowance.spend(1 + data.count(b"\\"))
        return data


def open_sequences(dataset: Dataset, allowance: Allowance, *, strict: bool, level: int = 0) -> None:
    """Parse every sequence, which pydicom leaves for later, and count what the other values will come to.

    A sequence that cannot be parsed is dropped, unless reading is `strict` and a picture depends on it. A VR that
    nobody knows is taken for the one that the standard has for the element. Raises `MalformedDicom`.
    """
    if level > _MOST_LEVELS:
        raise MalformedDicom("The DICOM header has too many sequences within sequences.")
    _open_level(dataset, allowance, strict=strict)
    sequences = (element.value for element in _elements(dataset) if element.VR == "SQ" and element.value)
    for item in chain.from_iterable(sequences):
        open_sequences(item, allowance, strict=strict, level=level + 1)
    allowance.spend(0)  # pydicom swallows some of what a stream raises


def _open_level(dataset: Dataset, allowance: Allowance, *, strict: bool) -> None:
    """Parse the sequences of one level; apart, so that its bytes are let go of before the next is read."""
    raw_elements = [element for element in _elements(dataset) if isinstance(element, RawDataElement)]
    for raw in raw_elements:
        if raw.tag.is_private_creator:  # read to know its block's elements by
            allowance.spend(_count_values(raw))
    for raw in raw_elements:
        try:
            _open(raw, dataset, allowance, strict=strict)
        except (CarinaError, MemoryError):
            raise
        except Exception:  # noqa: BLE001 - see `quietly`; what is dropped cannot be parsed again without a bound
            if strict and raw.tag in _TABLES:
                raise MalformedDicom(f"{name_of(raw.tag)} cannot be read.") from None
            del dataset[raw.tag]


def _elements(dataset: Dataset) -> list[DataElement | RawDataElement]:
    """All elements as they are: to iterate over a data set is to have every value made."""
    return [dataset.get_item(tag) for tag in dataset.keys()]  # noqa: SIM118


def _open(raw: RawDataElement, dataset: Dataset, allowance: Allowance, *, strict: bool) -> None:
    """Parse an element where it is a sequence, else count its values."""
    if raw.VR is not None and raw.VR not in converters:
        raw = raw._replace(VR=None)
        dataset[raw.tag] = raw
    value = raw.value or b""
    found: dict[str, Any] = {}
    raw_element_vr(raw, found, ds=dataset)
    vrs = set(found["VR"].split(" or "))
    if "SQ" in vrs:
        if not strict and value[:4] not in _SEQUENCE_STARTS:  # pydicom makes an item of anything
            raise MalformedSequence
        stream = MeteredStream(value, allowance)
        encodings = dataset.original_character_set
        items = read_sequence(stream, raw.is_implicit_VR, raw.is_little_endian, len(value), encodings)
        dataset[raw.tag] = DataElement(raw.tag, "SQ", Sequence(items))
    elif strict and len(value) > _MOST_VALUE_BYTES and not vrs & _BULK_VRS:
        raise MalformedDicom(f"{name_of(raw.tag)} is longer than it can be.")
    elif vrs & _NUMBER_VRS:
        allowance.spend(len(value) // (2 * _NUMBERS_A_STEP))
    elif not vrs <= _BULK_VRS:
        allowance.spend(_count_values(raw))


def _count_values(raw: RawDataElement) -> int:
    """How many stretches of another character set are in a value; the texts in it were counted as it was read."""
    return (raw.value or b"").count(b"\x1b")
