"""The DICOM JSON model, PS3.18 annex F."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from flask import Response
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataset import Dataset

from api.dicomweb.media_types import DICOM_JSON
from shared.imaging.dicom_file import quietly

#: A data set, by eight hex digits of the tag.
DataSet = dict[str, Any]

_CHARACTER_SET = "00080005"
#: What a metadata answer may be, PS3.18 section 8.7.5.
OFFERED = (DICOM_JSON, "application/json")


def key_of(keyword: str) -> str:
    """Return an attribute's tag as DICOM JSON writes it."""
    tag = tag_for_keyword(keyword)
    assert tag is not None, keyword
    return f"{tag:08X}"


def attribute(keyword: str, *values: object) -> DataSet:
    """Return a data set with one attribute; without values it is an empty one."""
    tag = tag_for_keyword(keyword)
    assert tag is not None, keyword
    element: DataSet = {"vr": dictionary_VR(tag)}
    return {f"{tag:08X}": element | ({"Value": list(values)} if values else {})}


def from_dataset(dataset: Dataset) -> DataSet:
    """Return what pydicom has read; an element whose value makes no sense is left out."""
    with quietly():
        described: DataSet = dataset.to_json_dict(bulk_data_threshold=2**31, suppress_invalid_tags=True)
    result = {tag: _finite(element) for tag, element in described.items()}
    if _CHARACTER_SET in result:
        result |= attribute("SpecificCharacterSet", "ISO_IR 192")  # JSON is UTF-8
    return result


def select(dataset: Mapping[str, Any], keys: Iterable[str]) -> DataSet:
    """Return these attributes; one that is not there is empty."""
    return {key: dataset.get(key) or {"vr": dictionary_VR(int(key, 16))} for key in keys}


def answer(datasets: Iterable[DataSet], content_type: str) -> Response:
    """Return data sets as an array, one after the other as they are read."""
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


def _finite(value: Any) -> Any:
    """Write what JSON has no number for as a string, PS3.18 section F.2.3."""
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_finite(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value
