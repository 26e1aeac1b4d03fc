"""WADO-RS: retrieve instances, their metadata and frames, PS3.18 section 10.4.

An instance is sent in the transfer syntax in which it was received, because nothing is decoded here; a request for
another one is answered with 406. All bytes of an original are checked against its digest while they are sent.
"""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from flask import Response
from flask_openapi3.types import ResponseDict

from api.dicom.web.dicom_json import OFFERED, DataSet, answer, attribute, described, from_dataset, key_of
from api.dicom.web.frames import fetch_frame
from api.dicom.web.headers import Headers, header_cache, read_header
from api.dicom.web.media_types import DICOM, OCTETS, RELATED, NotAcceptable, accepted, choose
from api.dicom.web.parts import primed, related
from api.dicom.web.resources import (
    INSTANCE,
    SERIES,
    STUDY,
    FramesPath,
    Instance,
    InstanceUid,
    SeriesUid,
    StudyUid,
    check_frames,
    dicomweb,
    find,
)
from api.dicom.web.warnings import warn_of_unknown
from api.http.audit import note
from api.http.auth import requires
from api.http.errors import READS_OBJECTS, may_raise
from api.http.services import services
from shared.errors import MalformedDicom, MultiFrameImage, RequestError, UndecodablePixelData
from shared.object_store import ObjectStore, original_key
from shared.vocabulary.states import Scope

Found = TypeVar("Found")

blueprint = dicomweb("wado")
warn_of_unknown(blueprint)

_BYTES = {"schema": {"type": "string", "format": "binary"}}
_INSTANCES: ResponseDict = {"200": {"description": "The instances as they were sent.", "content": {RELATED: _BYTES}}}
_INSTANCE: ResponseDict = {
    "200": {"description": "The instance as it was sent.", "content": {RELATED: _BYTES, DICOM: _BYTES}}
}
_FRAMES: ResponseDict = {
    "200": {
        "description": "The frame: native values in little endian, or the compressed codestream as it was sent.",
        "content": {RELATED: _BYTES, OCTETS: _BYTES, "image/*": _BYTES},
    }
}
_METADATA: ResponseDict = {
    "200": described(
        "All attributes but the pixel data, which have a `BulkDataURI`.",
        attribute("SOPInstanceUID", "1.2.826.0.1.3680043.8.498.1.1.1") | attribute("Rows", 3000),
    )
}


class UnreadableInstance(RequestError):
    """The pixel data of the stored instance cannot be read."""

    code = "unreadable_instance"
    status = 409


@blueprint.get(STUDY, responses=_INSTANCES)
@requires(Scope.READ)
@may_raise(NotAcceptable, *READS_OBJECTS)
def retrieve_study(path: StudyUid) -> Response:
    """Retrieve a study's instances (WADO-RS).

    As `multipart/related` DICOM files, with the bytes that were stored.
    """
    return _retrieve(find(path))


@blueprint.get(SERIES, responses=_INSTANCES)
@requires(Scope.READ)
@may_raise(NotAcceptable, *READS_OBJECTS)
def retrieve_series(path: SeriesUid) -> Response:
    """Retrieve a series' instances (WADO-RS).

    As `multipart/related` DICOM files, with the bytes that were stored.
    """
    return _retrieve(find(path))


@blueprint.get(INSTANCE, responses=_INSTANCE)
@requires(Scope.READ)
@may_raise(NotAcceptable, *READS_OBJECTS)
def retrieve_instance(path: InstanceUid) -> Response:
    """Retrieve an instance (WADO-RS).

    As a DICOM file, alone or within `multipart/related`, with the bytes that were stored.
    """
    return _retrieve(find(path), alone=True)


@blueprint.get(f"{STUDY}/metadata", responses=_METADATA)
@requires(Scope.READ)
@may_raise(NotAcceptable, *READS_OBJECTS)
def study_metadata(path: StudyUid) -> Response:
    """Show the headers of a study's instances (WADO-RS).

    All attributes but the pixel data, as DICOM JSON.
    """
    return _metadata(find(path))


@blueprint.get(f"{SERIES}/metadata", responses=_METADATA)
@requires(Scope.READ)
@may_raise(NotAcceptable, *READS_OBJECTS)
def series_metadata(path: SeriesUid) -> Response:
    """Show the headers of a series' instances (WADO-RS).

    All attributes but the pixel data, as DICOM JSON.
    """
    return _metadata(find(path))


@blueprint.get(f"{INSTANCE}/metadata", responses=_METADATA)
@requires(Scope.READ)
@may_raise(NotAcceptable, *READS_OBJECTS)
def instance_metadata(path: InstanceUid) -> Response:
    """Show an instance's header (WADO-RS).

    All attributes but the pixel data, as DICOM JSON.
    """
    return _metadata(find(path))


@blueprint.get(f"{INSTANCE}/frames/<frames>", responses=_FRAMES)
@requires(Scope.READ)
@may_raise(NotAcceptable, UnreadableInstance, *READS_OBJECTS)
def frames(path: FramesPath) -> Response:
    """Retrieve an instance's frame (WADO-RS).

    The pixel data of frame 1, the only one, in a transfer syntax of the header `Accept`.
    """
    (instance,) = find(path)
    check_frames(path)
    return _frame(instance)


@blueprint.get(f"{INSTANCE}/bulkdata", responses=_FRAMES)
@requires(Scope.READ)
@may_raise(NotAcceptable, UnreadableInstance, *READS_OBJECTS)
def bulkdata(path: InstanceUid) -> Response:
    """Retrieve an instance's pixel data (WADO-RS).

    The value that the metadata refer to as bulk data.
    """
    return _frame(find(path)[0])


def _retrieve(found: list[Instance], *, alone: bool = False) -> Response:
    """Return originals one by one. With `alone`, a single one can be sent without multipart."""
    wanted = _first(
        (
            wanted
            for wanted in accepted()
            if wanted.takes(DICOM)
            and all(wanted.takes_syntax(instance.transfer_syntax_uid) for instance in found)
            and (alone or wanted.is_related)
        ),
        _offered(DICOM, found[0].transfer_syntax_uid, alone=alone),
    )
    note(instances=len(found))
    store = services().store  # the answer is sent after the end of the request's context
    parts = ((f"{DICOM}; transfer-syntax={each.transfer_syntax_uid}", _open(store, each)) for each in found)
    return related(DICOM, parts) if wanted.is_related else Response(next(parts)[1], content_type=DICOM)


def _frame(instance: Instance) -> Response:
    """Return the pixel data. If the request names a transfer syntax, `application/octet-stream` is also offered."""
    try:
        frame = fetch_frame(
            services().store,
            instance.original,
            max_image_pixels=services().settings.max_image_pixels,
            is_decoded=instance.rendition_sha256 is not None,
        )
    except (UndecodablePixelData, MultiFrameImage, MalformedDicom) as exc:
        raise UnreadableInstance(f"The frame of the stored instance cannot be found or read: {exc.detail}") from exc
    wanted, content_type = _first(
        (
            (wanted, name)
            for wanted in accepted()
            for name in (*frame.media_types, *([OCTETS] if wanted.transfer_syntax else []))
            if wanted.takes(name) and wanted.takes_syntax(frame.transfer_syntax)
        ),
        _offered(frame.media_types[0], frame.transfer_syntax, alone=True),
    )
    if wanted.is_related:
        part_type = f"{content_type}; transfer-syntax={frame.transfer_syntax}"
        return related(content_type, iter([(part_type, frame.chunks())]))
    return Response(frame.chunks(), content_type=content_type, headers={"Content-Length": str(len(frame.value))})


def _metadata(found: list[Instance]) -> Response:
    content_type = choose(accepted(), OFFERED)
    cache, places = header_cache(), [f"{instance.url}/bulkdata" for instance in found]
    return answer(primed(_describe(cache, *each) for each in zip(found, places, strict=True)), content_type)


def _describe(cache: Headers, instance: Instance, pixels_url: str) -> DataSet:
    """Return all attributes of a header, and the URL of the pixel data."""
    vr = None
    try:
        file = read_header(cache.store, instance.original)
        dataset, vr = from_dataset(file.dataset), file.pixel_data and file.pixel_data.vr
    except MalformedDicom:  # in an element that intake did not read
        (dataset,) = cache.read([instance.original])
    pixels = {key_of("PixelData"): {"vr": vr or "OW", "BulkDataURI": pixels_url}}
    return dataset | attribute("AvailableTransferSyntaxUID", instance.transfer_syntax_uid) | pixels


def _open(store: ObjectStore, instance: Instance) -> Iterator[bytes]:
    sha256 = instance.original.sha256
    return store.stream(original_key(sha256), sha256=sha256)


def _offered(name: str, transfer_syntax: str, *, alone: bool) -> list[str]:
    """Return the media types that a request can accept: in a part and, for a single object, by itself."""
    in_part = f'{RELATED}; type="{name}"; transfer-syntax={transfer_syntax}'
    return [in_part, f"{name}; transfer-syntax={transfer_syntax}"] if alone else [in_part]


def _first(found: Iterator[Found], offered: Iterable[str]) -> Found:
    for each in found:
        return each
    raise NotAcceptable.of(offered)
