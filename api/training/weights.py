"""Weights in the object store, named by their SHA-256: of models to import, and to begin trainings with."""

import hashlib
from collections.abc import Iterator

from flask import Response, request

from api.contract.weights import BYTES, WeightsAnswer, WeightsPath
from api.http.auth import requires
from api.http.body import Body, takes_uploads
from api.http.resource import as_json, resource
from api.http.services import services
from shared.errors import InvalidRequest
from shared.intake.receive import in_parts
from shared.object_store import weights_key
from shared.vocabulary.states import Scope

blueprint = resource("weights", tag="models")


@blueprint.put("/v1/weights/<sha256>", responses={200: WeightsAnswer}, openapi_extensions={"requestBody": BYTES})
@requires(Scope.TRAIN)
@takes_uploads
def put(path: WeightsPath) -> Response:
    """Upload model weights.

    Stores a weights file under its SHA-256. Register a model with it with `POST /v1/models`, or start a training from
    it with `initial_weights` set to `object:SHA256`. Sending the same file again changes nothing.
    """
    body = Body(request, max_bytes=services().settings.max_upload_bytes)
    services().store.put_parts(weights_key(path.sha256), in_parts(_checked(body, path.sha256)))
    return as_json(WeightsAnswer(sha256=path.sha256, byte_count=body.bytes_read))


def _checked(body: Body, sha256: str) -> Iterator[bytes]:
    """Yield the body; raise `InvalidRequest` at its end if it is another file."""
    digest = hashlib.sha256()
    for chunk in body.chunks():
        digest.update(chunk)
        yield chunk
    if digest.hexdigest() != sha256:
        raise InvalidRequest("The file's SHA-256 is not that of the path.", parameter="sha256")
