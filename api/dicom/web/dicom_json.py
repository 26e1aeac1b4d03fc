"""The DICOM JSON model, PS3.18 annex F."""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from flask import Response
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.hooks import raw_element_vr
from pydicom.multival import MultiValue
from pydicom.tag import Tag

from api.dicom.web.character_sets import CharacterSet
from api.dicom.web.media_types import DICOM_JSON
from api.dicom.web.values import CHOICES, VRS, describe, number, with_values
from shared.imaging.dicom_file import quietly
from shared.imaging.element_values import numbers_of, texts_of, values_of

#: A data set, by tags of eight hex digits.
DataSet = dict[str, Any]

_CHARACTER_SET, _PIXEL_REPRESENTATION = Tag("SpecificCharacterSet"), Tag("PixelRepresentation")
#: The media types of metadata, PS3.18 section 8.7.5.
OFFERED = (DICOM_JSON, "application/json")


def described(description: str, *examples: DataSet, schema: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the OpenAPI description of an answer in DICOM JSON. The default `schema` is an array of data sets."""
    content = {
        "schema": schema or {"type": "array", "items": {"type": "object"}},
        "example": list(examples) if schema is None else examples[0],
    }
    return {"description": description, "content": dict.fromkeys(OFFERED, content)}


def key_of(keyword: str) -> str:
    """Return the tag of an attribute as in DICOM JSON."""
    tag = tag_for_keyword(keyword)
    assert tag is not None, keyword
    return f"{tag:08X}"


def attribute(keyword: str, *values: object) -> DataSet:
    """Return a data set with one attribute, which is empty without values."""
    tag = tag_for_keyword(keyword)
    assert tag is not None, keyword
    element: DataSet = {"vr": dictionary_VR(tag)}
    return {f"{tag:08X}": element | ({"Value": list(values)} if values else {})}


def from_dataset(dataset: Dataset) -> DataSet:
    """Return a data set with text in Unicode, including values that violate the rules of their VRs."""
    with quietly():
        return _describe(dataset, CharacterSet(), signed=False)


def _describe(dataset: Dataset, characters: CharacterSet, *, signed: bool) -> DataSet:
    """Return the elements of a data set. Items inherit character set and sign from their parent (PS3.5 7.5.3)."""
    if _CHARACTER_SET in dataset:
        characters = CharacterSet.of([text or "" for text in texts_of(values_of(dataset, "SpecificCharacterSet"))])
    if _PIXEL_REPRESENTATION in dataset:
        signed = numbers_of(values_of(dataset, "PixelRepresentation"))[:1] == [1]
    result: DataSet = {}
    for tag in dataset.keys():  # noqa: SIM118 - to iterate over a data set is to have pydicom make every value
        if tag.element == 0:  # group length
            continue
        element = dataset.get_item(tag)
        if isinstance(element, RawDataElement):
            vr = _vr(element, dataset, signed=signed)
            found = describe(vr, element.value or b"", characters, little_endian=element.is_little_endian)
        else:
            found = _made(element, characters, signed=signed)
        result[f"{tag:08X}"] = found
    if (key := f"{_CHARACTER_SET:08X}") in result:
        result[key] = {"vr": "CS", "Value": ["ISO_IR 192"]}  # JSON is UTF-8
    return result


def _vr(raw: RawDataElement, dataset: Dataset, *, signed: bool) -> str:
    """Return the VR in the file; if it has none or an unknown one, return the standard's."""
    known: dict[str, Any] = {}
    raw_element_vr(raw if raw.VR in VRS else raw._replace(VR=None), known, ds=dataset)
    vr = str(known["VR"])
    if vr == "US or SS":
        return "SS" if signed else "US"
    vr = CHOICES.get(vr, vr)
    return vr if vr in VRS else "UN"


def _made(element: DataElement, characters: CharacterSet, *, signed: bool) -> DataSet:
    """Return an element that pydicom has already converted, such as a sequence."""
    vr, value = element.VR, element.value
    if vr == "SQ":
        return with_values("SQ", [_describe(item, characters, signed=signed) for item in value or ()])
    if isinstance(value, bytes):
        return describe(vr if vr in VRS else "UN", value, characters, little_endian=True)
    values = list(value) if isinstance(value, MultiValue | list) else [] if value in (None, "") else [value]
    return with_values(vr, [number(each) if isinstance(each, int | float) else str(each) for each in values])


def select(dataset: Mapping[str, Any], keys: Iterable[str]) -> DataSet:
    """Return these attributes; missing ones are empty."""
    return {key: dataset.get(key) or {"vr": dictionary_VR(int(key, 16))} for key in keys}


def answer(datasets: Iterable[DataSet], content_type: str) -> Response:
    """Return data sets as an array, which is sent while they are read."""
    return Response(_array(datasets), content_type=content_type)


def _array(datasets: Iterable[DataSet]) -> Iterator[str]:
    start = "["
    for dataset in datasets:
        yield start + to_text(dataset)
        start = ","
    yield "[]" if start == "[" else "]"


def to_text(dataset: DataSet) -> str:
    """Return a data set as JSON, in the order of its tags."""
    return json.dumps(dict(sorted(dataset.items())), allow_nan=False, separators=(",", ":"))
