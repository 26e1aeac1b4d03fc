"""Whether the process lives, and whether the servers that it needs answer."""

import time

from flask import Response
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag

from api.auth import public
from api.resource import as_json
from api.schemas import Health, Readiness
from api.services import services

#: How long a server may take to answer.
PING_S = 2.0

blueprint = APIBlueprint("health", __name__, abp_tags=[Tag(name="health")])


@blueprint.get("/healthz", responses={200: Health})
@public
def healthz() -> Response:
    """Say that the process answers."""
    return as_json(Health())


@blueprint.get("/readyz", responses={200: Readiness, 503: Readiness})
@public
def readyz() -> Response:
    """Ask each server that the API needs, all at the same time."""
    deadline = time.monotonic() + PING_S
    pings = services().pings
    for ping in pings.values():
        ping.start()
    states = {name: ping.state_by(deadline) for name, ping in pings.items()}
    ready = all(state.ok for state in states.values())
    answer = Readiness(status="ready" if ready else "not_ready", dependencies=states)
    return as_json(answer, 200 if ready else 503)
