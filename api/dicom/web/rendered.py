"""Rendered resources and thumbnails of WADO-RS, from the detector's rendition, PS3.18 sections 10.4.1.1.3 and .6."""

from io import BytesIO

import PIL.Image
from flask import Response
from flask_openapi3.types import ResponseDict
from pydantic import ConfigDict, Field

from api.dicom.web.media_types import RELATED, NotAcceptable, accepted, choose
from api.dicom.web.parts import related
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
    find,
)
from api.dicom.web.viewport import Viewport, read_viewport
from api.dicom.web.wado import blueprint
from api.dicom.web.warnings import know_parameters
from api.http.auth import requires
from api.http.errors import READS_OBJECTS, may_raise
from api.http.services import Services, services
from shared.bounded import Bounded
from shared.errors import NotReady
from shared.object_store import rendition_key
from shared.vocabulary.states import Scope

PNG, JPEG = "image/png", "image/jpeg"
_THUMBNAIL = Viewport(256, 256)
_BYTES = {"schema": {"type": "string", "format": "binary"}}
_PICTURE: ResponseDict = {
    "200": {"description": "The picture that the detector sees.", "content": {PNG: _BYTES, JPEG: _BYTES}}
}
_PICTURES: ResponseDict = {"200": {"description": "The pictures that the detector sees.", "content": {RELATED: _BYTES}}}


class RenderedQuery(Bounded):
    """How to render. The standard's annotation, iccprofile and window would need the original pixels: not supported."""

    model_config = ConfigDict(extra="allow")

    quality: int = Field(90, ge=1, le=100, description="Of a JPEG.")
    viewport: str = Field(
        "",
        max_length=100,
        description="`width,height` to fit into, and of a rendered resource `,x,y,width,height` of the part to show.",
    )


@blueprint.get(f"{INSTANCE}/rendered", responses=_PICTURE)
@requires(Scope.READ)
@may_raise(NotReady, NotAcceptable, *READS_OBJECTS)
def rendered(path: InstanceUid, query: RenderedQuery) -> Response:
    """Show an instance as a picture (WADO-RS).

    The rendition that the detector sees, as PNG or JPEG.
    """
    return _picture(find(path), query, read_viewport(query.viewport))


@blueprint.get(f"{INSTANCE}/frames/<frames>/rendered", responses=_PICTURE)
@requires(Scope.READ)
@may_raise(NotReady, NotAcceptable, *READS_OBJECTS)
def rendered_frames(path: FramesPath, query: RenderedQuery) -> Response:
    """Show an instance's frame as a picture (WADO-RS).

    The rendition that the detector sees, as PNG or JPEG.
    """
    found = find(path)
    check_frames(path)
    return _picture(found, query, read_viewport(query.viewport))


@blueprint.get(f"{SERIES}/rendered", responses=_PICTURES)
@requires(Scope.READ)
@may_raise(NotReady, NotAcceptable, *READS_OBJECTS)
def rendered_series(path: SeriesUid, query: RenderedQuery) -> Response:
    """Show a series' instances as pictures (WADO-RS).

    The rendition that the detector sees, as PNG or JPEG.
    """
    return _pictures(find(path), query)


@blueprint.get(f"{STUDY}/rendered", responses=_PICTURES)
@requires(Scope.READ)
@may_raise(NotReady, NotAcceptable, *READS_OBJECTS)
def rendered_study(path: StudyUid, query: RenderedQuery) -> Response:
    """Show a study's instances as pictures (WADO-RS).

    The rendition that the detector sees, as PNG or JPEG.
    """
    return _pictures(find(path), query)


@blueprint.get(f"{INSTANCE}/thumbnail", responses=_PICTURE)
@requires(Scope.READ)
@may_raise(NotReady, NotAcceptable, *READS_OBJECTS)
def thumbnail(path: InstanceUid, query: RenderedQuery) -> Response:
    """Show an instance as a thumbnail (WADO-RS).

    A small picture of the rendition that the detector sees.
    """
    return _thumbnail(path, query)


@blueprint.get(f"{INSTANCE}/frames/<frames>/thumbnail", responses=_PICTURE)
@requires(Scope.READ)
@may_raise(NotReady, NotAcceptable, *READS_OBJECTS)
def frames_thumbnail(path: FramesPath, query: RenderedQuery) -> Response:
    """Show an instance's frame as a thumbnail (WADO-RS).

    A small picture of the rendition that the detector sees.
    """
    return _thumbnail(path, query)


@blueprint.get(f"{SERIES}/thumbnail", responses=_PICTURE)
@requires(Scope.READ)
@may_raise(NotReady, NotAcceptable, *READS_OBJECTS)
def series_thumbnail(path: SeriesUid, query: RenderedQuery) -> Response:
    """Show a series as a thumbnail (WADO-RS).

    A small picture of its first instance that has a rendition.
    """
    return _thumbnail(path, query)


@blueprint.get(f"{STUDY}/thumbnail", responses=_PICTURE)
@requires(Scope.READ)
@may_raise(NotReady, NotAcceptable, *READS_OBJECTS)
def study_thumbnail(path: StudyUid, query: RenderedQuery) -> Response:
    """Show a study as a thumbnail (WADO-RS).

    A small picture of its first instance that has a rendition.
    """
    return _thumbnail(path, query)


def _thumbnail(path: StudyUid, query: RenderedQuery) -> Response:
    found = find(path)
    if isinstance(path, FramesPath):
        check_frames(path)
    viewport = read_viewport(query.viewport, with_region=False) or _THUMBNAIL
    return _picture(found, query, viewport, default=JPEG)


def _picture(found: list[Instance], query: RenderedQuery, viewport: Viewport | None, default: str = PNG) -> Response:
    """Return the picture of the first instance with a rendition."""
    know_parameters(RenderedQuery.model_fields)
    content_type = choose(accepted(), sorted((PNG, JPEG), key=lambda each: each != default))
    ready = [instance for instance in found if instance.rendition_sha256 is not None]
    picture = _draw(services(), (ready or found)[0], query, viewport, content_type)
    return Response(picture, content_type=content_type)


def _pictures(found: list[Instance], query: RenderedQuery) -> Response:
    """Return a picture of each instance. Raises `NotReady` unless all have a rendition."""
    know_parameters(RenderedQuery.model_fields)
    viewport = read_viewport(query.viewport)
    for wanted in accepted():
        content_type = next((each for each in (JPEG, PNG) if wanted.is_related and wanted.takes(each)), None)
        if content_type is not None:
            break
    else:
        raise NotAcceptable.of(f'{RELATED}; type="{each}"' for each in (JPEG, PNG))
    if any(instance.rendition_sha256 is None for instance in found):
        raise NotReady("An image has no rendition yet.")
    own = services()  # the answer is sent after the end of the request's context
    parts = ((content_type, iter([_draw(own, instance, query, viewport, content_type)])) for instance in found)
    return related(content_type, parts)


def _draw(
    services: Services, instance: Instance, query: RenderedQuery, viewport: Viewport | None, content_type: str
) -> bytes:
    sha256 = instance.rendition_sha256
    if sha256 is None:
        raise NotReady("The image has no rendition yet.")
    picture = services.store.get(rendition_key(sha256), sha256=sha256)
    if content_type == PNG and viewport is None:
        return picture
    buffer = BytesIO()
    with services.drawing, PIL.Image.open(BytesIO(picture)) as image:
        shown = image.convert("L") if viewport is None else viewport.show(image.convert("L"), instance.size_px)
        shown.save(buffer, "PNG" if content_type == PNG else "JPEG", quality=query.quality)
    return buffer.getvalue()
