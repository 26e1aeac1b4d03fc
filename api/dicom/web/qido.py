"""QIDO-RS: search for studies, series and instances, PS3.18 section 10.6."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from flask import Response, request
from flask_openapi3.types import ResponseDict
from sqlalchemy.orm import Session

from api.dicom.web.dicom_json import OFFERED, DataSet, answer, attribute, described, key_of, select
from api.dicom.web.headers import header_cache
from api.dicom.web.media_types import NotAcceptable, accepted, choose
from api.dicom.web.resources import (
    ADDRESSABLE,
    PREFIX,
    SERIES,
    STUDY,
    Instance,
    Level,
    SeriesUid,
    StudyUid,
    as_instance,
    complete,
    dicomweb,
    latest,
    url_of,
)
from api.dicom.web.search import (
    MAX_RESULTS,
    NotSearchable,
    SearchQuery,
    is_parameter,
    read_conditions,
    read_fields,
    warnings,
)
from api.dicom.web.warnings import add_warnings, warn_of_unknown
from api.http.audit import note
from api.http.auth import identity, requires
from api.http.errors import READS_OBJECTS, may_raise
from api.http.services import services
from shared.imaging.header import DICOM
from shared.tables import Image, Study
from shared.vocabulary.states import Scope

blueprint = dicomweb("qido")
warn_of_unknown(blueprint, is_parameter)

_STUDY = attribute("StudyInstanceUID", "1.2.826.0.1.3680043.8.498.1") | attribute("ModalitiesInStudy", "DX")
_RESULTS: ResponseDict = {"200": described("The data sets that match; an empty array if none does.", _STUDY)}


#: Attributes of a result at its level and the levels above, PS3.18 tables 10.6.3-3 to 10.6.3-5.
_ATTRIBUTES = {
    Level.STUDY: [
        "SpecificCharacterSet", "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName",
        "StudyDescription", "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyID",
    ],
    Level.SERIES: ["Modality", "SeriesDescription", "SeriesInstanceUID", "SeriesNumber"],
    Level.INSTANCE: ["SOPClassUID", "SOPInstanceUID", "InstanceNumber", "Rows", "Columns", "BitsAllocated"],
}  # fmt: skip


@blueprint.get(f"{PREFIX}/studies", responses=_RESULTS)
@requires(Scope.READ)
@may_raise(NotSearchable, NotAcceptable, *READS_OBJECTS)
def search_studies(query: SearchQuery) -> Response:
    """Search for studies (QIDO-RS).

    Search by UIDs, SOP classes and modalities, with query parameters by keyword or tag. Patient data cannot be
    searched.
    """
    return _search(Level.STUDY, query)


@blueprint.get(f"{PREFIX}/series", responses=_RESULTS)
@requires(Scope.READ)
@may_raise(NotSearchable, NotAcceptable, *READS_OBJECTS)
def search_series(query: SearchQuery) -> Response:
    """Search for series (QIDO-RS).

    Search by UIDs, SOP classes and modalities, with query parameters by keyword or tag. Patient data cannot be
    searched.
    """
    return _search(Level.SERIES, query)


@blueprint.get(f"{STUDY}/series", responses=_RESULTS)
@requires(Scope.READ)
@may_raise(NotSearchable, NotAcceptable, *READS_OBJECTS)
def search_series_of_study(path: StudyUid, query: SearchQuery) -> Response:
    """Search for series of a study (QIDO-RS).

    Search by UIDs, SOP classes and modalities, with query parameters by keyword or tag. Patient data cannot be
    searched.
    """
    return _search(Level.SERIES, query, path)


@blueprint.get(f"{PREFIX}/instances", responses=_RESULTS)
@requires(Scope.READ)
@may_raise(NotSearchable, NotAcceptable, *READS_OBJECTS)
def search_instances(query: SearchQuery) -> Response:
    """Search for instances (QIDO-RS).

    Search by UIDs, SOP classes and modalities, with query parameters by keyword or tag. Patient data cannot be
    searched.
    """
    return _search(Level.INSTANCE, query)


@blueprint.get(f"{STUDY}/instances", responses=_RESULTS)
@requires(Scope.READ)
@may_raise(NotSearchable, NotAcceptable, *READS_OBJECTS)
def search_instances_of_study(path: StudyUid, query: SearchQuery) -> Response:
    """Search for instances of a study (QIDO-RS).

    Search by UIDs, SOP classes and modalities, with query parameters by keyword or tag. Patient data cannot be
    searched.
    """
    return _search(Level.INSTANCE, query, path)


@blueprint.get(f"{SERIES}/instances", responses=_RESULTS)
@requires(Scope.READ)
@may_raise(NotSearchable, NotAcceptable, *READS_OBJECTS)
def search_instances_of_series(path: SeriesUid, query: SearchQuery) -> Response:
    """Search for instances of a series (QIDO-RS).

    Search by UIDs, SOP classes and modalities, with query parameters by keyword or tag. Patient data cannot be
    searched.
    """
    return _search(Level.INSTANCE, query, path)


def _search(level: Level, query: SearchQuery, path: StudyUid | None = None) -> Response:
    content_type = choose(accepted(), OFFERED)
    fields, conditions = read_fields(query.includefield), read_conditions(request.args)
    limit = min(query.limit, MAX_RESULTS)
    with services().database.begin() as session:
        if path is not None:
            conditions.append(Study.study_instance_uid == path.study_uid)
            complete(session, [path.study_uid])
        if isinstance(path, SeriesUid):
            conditions.append(Image.series_instance_uid == path.series_uid)
        rows, more = _read_page(session, level, conditions, query.offset, limit)
        note(study_ids=sorted({str(image.study_id) for image, _ in rows}))
        counts = _count(session, level, {image.study_id for image, _ in rows})
        found = [(as_instance(image, uid), counts.get(_key(image, level), {})) for image, uid in rows]
    attributes = header_cache().read([instance.original for instance, _ in found])
    results = [
        select(header, fields) | _describe(level, instance, header) | counted
        for (instance, counted), header in zip(found, attributes, strict=True)
    ]
    response = answer(results, content_type)
    # A client that requested a limit below the maximum knows that there can be more.
    cut = more and not ("limit" in request.args and query.limit <= limit)
    add_warnings(response, warnings(request.args, more=cut))
    return response


def _read_page(
    session: Session, level: Level, conditions: Sequence[sa.ColumnElement[bool]], offset: int, limit: int
) -> tuple[Sequence[Any], bool]:
    """Return the rows of a page's results, and whether more results follow."""
    if level is not Level.STUDY:
        rows = session.execute(latest(level, *conditions).offset(offset).limit(limit + 1)).all()
        return rows[:limit], len(rows) > limit
    # An index limits the number of studies to search, so studies are selected instead of all their images.
    matching = sa.select(Image.id).where(Image.study_id == Study.id, Image.media_type == DICOM, *conditions)
    studies = (
        sa.select(Study.id, Study.study_instance_uid)
        .where(Study.project_id == identity().project_id, Study.study_instance_uid.is_not(None))
        .where(matching.correlate(Study).exists())
        .order_by(Study.id.desc())
    )
    page = session.execute(studies.offset(offset).limit(limit + 1)).all()
    complete(session, [uid for _, uid in page[:limit] if uid])
    rows = session.execute(latest(level, Study.id.in_([study_id for study_id, _ in page[:limit]]))).all()
    return rows, len(page) > limit


def _key(image: Image, level: Level) -> tuple[UUID, str | None]:
    return image.study_id, image.series_instance_uid if level is Level.SERIES else None


def _count(session: Session, level: Level, study_ids: set[UUID]) -> dict[tuple[UUID, str | None], DataSet]:
    """Return the counts of the levels below each result, by `_key`; instances have none."""
    of_studies = sa.select(Image).join(Study, Study.id == Image.study_id).where(Study.id.in_(study_ids), ADDRESSABLE)
    instances = sa.func.count(sa.distinct(sa.tuple_(Image.series_instance_uid, Image.sop_instance_uid)))
    if level is Level.STUDY:
        series = sa.func.count(sa.distinct(Image.series_instance_uid))
        modalities = sa.func.array_remove(sa.func.array_agg(sa.distinct(Image.modality)), None)
        by_study = of_studies.with_only_columns(Image.study_id, series, instances, modalities).group_by(Image.study_id)
        return {
            (study_id, None): attribute("NumberOfStudyRelatedSeries", series_count)
            | attribute("NumberOfStudyRelatedInstances", instance_count)
            | attribute("ModalitiesInStudy", *(found or ()))
            for study_id, series_count, instance_count, found in session.execute(by_study)
        }
    if level is Level.SERIES:
        keys = (Image.study_id, Image.series_instance_uid)
        by_series = of_studies.with_only_columns(*keys, instances).group_by(*keys)
        return {
            (study_id, uid): attribute("NumberOfSeriesRelatedInstances", count)
            for study_id, uid, count in session.execute(by_series)
        }
    return {}


def _describe(level: Level, instance: Instance, header: DataSet) -> DataSet:
    """Return the attributes of a result: patient and study from the header, UIDs from the row."""
    keywords = [keyword for each in Level if each <= level for keyword in _ATTRIBUTES[each]]
    uids = (instance.study_uid, instance.series_uid, instance.instance_uid)[:level]
    result = select(header, [key_of(keyword) for keyword in keywords])
    result |= attribute("InstanceAvailability", "ONLINE") | attribute("RetrieveURL", url_of(*uids))
    result |= attribute("StudyInstanceUID", instance.study_uid)
    if level >= Level.SERIES:
        result |= attribute("SeriesInstanceUID", instance.series_uid)
        result |= attribute("Modality", *([instance.modality] if instance.modality else []))
    if level >= Level.INSTANCE:
        result |= attribute("SOPInstanceUID", instance.instance_uid)
        result |= attribute("SOPClassUID", *([instance.sop_class_uid] if instance.sop_class_uid else []))
        result |= attribute("AvailableTransferSyntaxUID", instance.transfer_syntax_uid)
    return result
