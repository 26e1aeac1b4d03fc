"""Reads the values of a data element from an untrusted file, whatever its VR, as texts or numbers."""

from collections.abc import Sequence as SequenceOf

from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence

#: Numbers that are written as text, PS3.5 section 6.2.
_DECIMAL_VRS = ("DS", "IS")


def values_of(dataset: Dataset, keyword: str) -> list[object]:
    """Return an element's values without empty ones at the end.

    If pydicom cannot read one of several numbers written as text, all are returned as strings. Any other element that
    it cannot read gives one value, None.
    """
    try:
        value = dataset.get(keyword)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - pydicom raises nearly any exception
        value = _written(dataset, keyword)
    values = list(value) if isinstance(value, MultiValue | Sequence | list) else [] if value in (None, "") else [value]
    while values and values[-1] == "":
        values.pop()
    return values


def texts_of(values: SequenceOf[object]) -> list[str | None]:
    """Return values as stripped texts; None for a value that is not a text."""
    return [_text_of(value) for value in values]


def numbers_of(values: SequenceOf[object]) -> list[float | None]:
    """Return values as numbers; None for a value that is not a number."""
    return [_number_of(value) for value in values]


def _written(dataset: Dataset, keyword: str) -> list[object]:
    tag = tag_for_keyword(keyword)
    assert tag is not None, keyword
    raw = dataset.get_item(tag)
    if not isinstance(raw, RawDataElement) or raw.value is None or (raw.VR or dictionary_VR(tag)) not in _DECIMAL_VRS:
        return [None]
    return [text.strip(" \0") for text in raw.value.decode("latin-1").split("\\")]


def _text_of(value: object) -> str | None:
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    return None if value is None or isinstance(value, Dataset) else str(value).strip(" \0")


def _number_of(value: object) -> float | None:
    if isinstance(value, bytes):  # the VR is one of bytes; `float` would read some as digits
        return None
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None
