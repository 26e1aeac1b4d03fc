"""Parses the parameters of a search, PS3.18 section 8.3.4.

Only UIDs, SOP classes and modalities can be searched for, because the database contains no patient data. A search for a
name, an id or a date is rejected: a viewer that requests one patient's studies must not receive those of all patients.
Parameters that are not attributes are ignored, with a warning.
"""

import re

import sqlalchemy as sa
from pydantic import ConfigDict, Field
from pydicom._dicom_dict import DicomDictionary
from pydicom.datadict import keyword_for_tag, tag_for_keyword
from sqlalchemy.orm import aliased
from werkzeug.datastructures import MultiDict

from api.dicom.web.dicom_json import key_of
from api.dicom.web.headers import SEARCHED
from shared.bounded import Bounded
from shared.errors import RequestError
from shared.tables import Image, Study

#: The maximum number of results in an answer; also the default limit.
MAX_RESULTS = 500

_COLUMNS = {
    "StudyInstanceUID": Study.study_instance_uid,
    "SeriesInstanceUID": Image.series_instance_uid,
    "SOPInstanceUID": Image.sop_instance_uid,
    "SOPClassUID": Image.sop_class_uid,
    "Modality": Image.modality,
}
_Other = aliased(Image)
#: Any instance of the study may match.
_COLUMNS_IN_STUDY = {"ModalitiesInStudy": _Other.modality, "SOPClassesInStudy": _Other.sop_class_uid}
_UNSUPPORTED = ("fuzzymatching", "emptyvaluematching", "multiplevaluematching")
_OPTIONS = {"accept", "charset", "limit", "offset", "includefield", *_UNSUPPORTED}
_TAG = re.compile(r"[0-9A-Fa-f]{8}")
_KEYWORDS = {entry[4].lower() for entry in DicomDictionary.values() if entry[4]}


class NotSearchable(RequestError):
    """This attribute cannot be searched for: only UIDs, SOP classes and modalities can. Carina's database holds no
    patient data."""

    code = "attribute_not_searchable"


_VALUES = "Only results with one of these values, with commas between."


class SearchQuery(Bounded):
    """The search conditions: attributes by keyword or tag; several values are separated by commas."""

    model_config = ConfigDict(extra="allow")

    limit: int = Field(MAX_RESULTS, ge=1, le=2**31, description=f"Maximum results, up to {MAX_RESULTS}.")
    offset: int = Field(0, ge=0, le=2**31, description="How many results to leave out.")
    includefield: list[str] = Field([], description="Further attributes to answer, or `all`.")
    fuzzymatching: str | None = Field(None, description="Not supported, as names are not searched.")
    StudyInstanceUID: str | None = Field(None, description=_VALUES)
    SeriesInstanceUID: str | None = Field(None, description=_VALUES)
    SOPInstanceUID: str | None = Field(None, description=_VALUES)
    SOPClassUID: str | None = Field(None, description=_VALUES)
    Modality: str | None = Field(None, description=_VALUES)
    ModalitiesInStudy: str | None = Field(None, description=_VALUES)


def read_conditions(arguments: MultiDict[str, str]) -> list[sa.ColumnElement[bool]]:
    """Return the conditions on rows of images and their studies. Raises `NotSearchable`."""
    conditions: list[sa.ColumnElement[bool]] = []
    for name, texts in arguments.lists():
        if name in _OPTIONS:
            continue
        # A list is separated by commas or backslashes, PS3.18 section 8.3.4.1.
        values = [value.strip() for text in texts for value in re.split(r"[,\\]", text) if value.strip()]
        if not values or "*" in values:
            continue  # matches anything
        if not _names_attribute(name):
            continue
        keyword = _keyword(name)
        if keyword not in _COLUMNS and keyword not in _COLUMNS_IN_STUDY:
            raise NotSearchable
        if any(sign in value for value in values for sign in "*?"):
            raise NotSearchable("A search takes whole values only, without the wildcards * and ?.")
        if keyword in _COLUMNS:
            conditions.append(_COLUMNS[keyword].in_(values))
        else:
            of_study = sa.select(_Other.id).where(_Other.study_id == Study.id, _COLUMNS_IN_STUDY[keyword].in_(values))
            conditions.append(of_study.correlate(Study).exists())
    return conditions


def read_fields(fields: list[str]) -> list[str]:
    """Return the tags in `includefield` that search results can contain."""
    names = [name.strip() for field in fields for name in field.split(",")]
    if "all" in names:
        return [key_of(keyword) for keyword in SEARCHED]
    return [key_of(keyword) for name in names if (keyword := _keyword(name)) in SEARCHED]


def warnings(arguments: MultiDict[str, str], *, more: bool) -> list[str]:
    """Return the texts of the answer's warnings, in the standard's own words."""
    texts = [
        f"The {name} parameter is not supported. Only literal matching has been performed."
        for name in _UNSUPPORTED
        if arguments.get(name, "").lower() == "true"
    ]
    if more:
        texts.append(
            "The number of results exceeded the maximum supported by the server. Additional results can be requested."
        )
    return texts


def is_parameter(name: str) -> bool:
    """Return whether a search has this parameter: an option or an attribute."""
    return name in _OPTIONS or _names_attribute(name)


def _names_attribute(name: str) -> bool:
    """Return whether a parameter means an attribute: also in a sequence, a private one, or with wrong capitals."""
    return any(_TAG.fullmatch(part) or part.lower() in _KEYWORDS for part in name.split("."))


def _keyword(name: str) -> str | None:
    """Return the keyword of an attribute, given by keyword or tag; None if it is not in the standard."""
    keyword = keyword_for_tag(int(name, 16)) if _TAG.fullmatch(name) else name
    return keyword if keyword and tag_for_keyword(keyword) is not None else None
