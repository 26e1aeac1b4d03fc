"""Images: the rendition, and the rendition with its findings."""

import hashlib
from io import BytesIO

import numpy as np
import PIL.Image
import sqlalchemy as sa
from flask import Response, request

from api.contract.findings import OverlayQuery
from api.contract.studies import ImagePath
from api.http.auth import requires
from api.http.errors import READS_OBJECTS, may_raise
from api.http.resource import file_answer, resource
from api.http.rows import find_row
from api.http.services import services
from shared.detector.boxes import rescale
from shared.errors import NotReady
from shared.imaging.overlay import OverlayBox, assign_colours, draw_overlay
from shared.models import registry
from shared.object_store import rendition_key
from shared.studies.results import select_results
from shared.tables import Detection, Image, Job, Model
from shared.version import code_version
from shared.vocabulary.flags import Flag
from shared.vocabulary.states import Scope

blueprint = resource("images")


@blueprint.get("/v1/images/<uuid:image_id>/rendition.png", responses={200: file_answer("image/png", "The picture.")})
@requires(Scope.READ)
@may_raise(NotReady, *READS_OBJECTS)
def rendition(path: ImagePath) -> Response:
    """Show an image's rendition.

    Returns the 8-bit picture that the detector sees. `If-None-Match` with its `ETag` is answered with status 304.
    """
    with services().database.begin() as session:
        sha256 = _rendition_sha256(find_row(session, Image, path.image_id))
    if request.if_none_match.contains(sha256):
        response = Response(status=304)
    else:
        response = _png(services().store.get(rendition_key(sha256), sha256=sha256))
    response.set_etag(sha256)
    return response


@blueprint.get("/v1/images/<uuid:image_id>/overlay.png", responses={200: file_answer("image/png", "The picture.")})
@requires(Scope.READ)
@may_raise(NotReady, *READS_OBJECTS)
def overlay(path: ImagePath, query: OverlayQuery) -> Response:
    """Show an image's rendition with its findings.

    Draws the findings of the active model, or those of another model if the active one has no result. The strip below
    the picture names the model and repeats the warnings of its card. `If-None-Match` with its `ETag` is answered with
    status 304, without drawing.
    """
    with services().database.begin() as session:
        image = find_row(session, Image, path.image_id)
        sha256 = _rendition_sha256(image)
        results = select_results(Job.image_id == image.id).limit(1)
        if query.model_id is not None:
            registry.require(session, query.model_id, parameter="model_id")
            results = results.where(Job.model_id == query.model_id)
        row = session.execute(results).one_or_none()
        if row is None:
            raise NotReady("No job of this image has succeeded yet.")
        job, model = row
        boxes = sa.select(Detection).where(Detection.job_id == job.id, Detection.score >= query.min_score)
        drawn = [_on_rendition(box, image) for box in session.scalars(boxes.order_by(Detection.rank))]
        found = session.scalars(sa.select(Detection.class_name).where(Detection.job_id == job.id).distinct())
        colours = assign_colours(found)
        note = " · ".join([*_warnings(image), *_about(model, registry.active(session), query.min_score)])
    etag = hashlib.sha256(repr((sha256, drawn, colours, note, code_version())).encode()).hexdigest()
    if request.if_none_match.contains(etag):
        response = Response(status=304)
    else:
        response = _png(_draw(sha256, drawn, note, colours))
    response.set_etag(etag)
    # A key's own client may keep it, and asks each time whether it is still current.
    response.headers["Cache-Control"] = "private, no-cache"
    response.vary.update(("Authorization", "Cookie"))
    return response


def _draw(sha256: str, boxes: list[OverlayBox], note: str, colours: dict[str, str]) -> bytes:
    with services().drawing:  # bounds the memory of pictures, whatever the number of requests
        png = services().store.get(rendition_key(sha256), sha256=sha256)
        with PIL.Image.open(BytesIO(png)) as picture:
            pixels = np.asarray(picture.convert("L"))
        return draw_overlay(pixels, boxes, note, colours)


def _rendition_sha256(image: Image) -> str:
    if image.rendition_sha256 is None:
        raise NotReady("The image has no rendition yet.")
    return image.rendition_sha256


def _on_rendition(box: Detection, image: Image) -> OverlayBox:
    """Return a box, scaled from pixels of the original to pixels of the rendition."""
    corners = (box.x_min_px, box.y_min_px, box.x_max_px, box.y_max_px)
    rendition_px = (image.rendition_width_px or 0, image.rendition_height_px or 0)
    (scaled,) = rescale(corners, (image.width_px, image.height_px), rendition_px).tolist()
    return OverlayBox(tuple(scaled), box.class_name, box.score)


def _warnings(image: Image) -> list[str]:
    """Return the image's flags, such as `Flag: Suspected inversion`."""
    return [f"Flag: {Flag(flag).label}" for flag in image.flags or ()]


def _about(model: Model, active: Model | None, min_score: float) -> list[str]:
    """Return the model of the findings, whether it is active, and its warnings."""
    training = f", {model.card['trained_on']}" if model.card.get("trained_on") else ""
    about = [f"Model {model.name} {model.digest[:12]}{training}, scores from {min_score:g}"]
    if active is None:
        about.append("This model is not active; none is")
    elif active.id != model.id:
        about.append(f"Not a result of the active model {active.name} {active.digest[:12]}")
    return [*about, *(f"Warning: {warning}" for warning in model.card.get("warnings", ()))]


def _png(png: bytes) -> Response:
    return Response(png, content_type="image/png")
